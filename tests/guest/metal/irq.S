/* Interrupts: HLT woken by the timer, the shadow of STI, an interrupt in a REP, NMI to oneself, IF respected. */
#include "metal.inc"
#ifdef SLOW
        .set LENGTH, 0x10000
        .set TIMES, 10
#else
        .set LENGTH, 0x800000
        .set TIMES, 40
#endif
        .code16
        .globl _start
_start: START_LONG
        APIC_ON
        GATE 2, on_nmi
        GATE TIMER, on_timer
        GATE 0x50, on_ipi
        xor %r12d, %r12d
        xor %r13d, %r13d
        xor %r14d, %r14d

        /* ten times: arm for 200 us, sleep */
        mov $10, %ebx
1:      movl $200000, 0x380(%r9)
        sti
        hlt
        cli
        dec %ebx
        jnz 1b
        cmp $10, %r12
        EXPECT 1

        /* an interrupt to oneself waits for IF, and for the instruction after STI */
        movl $0, 0x310(%r9)
        movl $0x4050, 0x300(%r9)
        mov $1000, %ecx
2:      loop 2b
        test %r13, %r13
        EXPECT 2
        sti
        mov %r13, %rax
        nop
        test %rax, %rax
        EXPECT 3
#ifdef SLOW /* a KVM that emulates several instructions in a row looks for interrupts after them */
        mov $1000, %ecx
7:      loop 7b
#endif
        cmp $1, %r13
        EXPECT 4
        cli

        /* NMI does not ask IF */
        movl $0x4400, 0x300(%r9)
        mov $1000, %ecx
3:      loop 3b
        cmp $1, %r14
        EXPECT 5

        /* a long REP MOVS is interrupted, and finishes right */
        mov $0x200000, %edi
        mov $0x55, %al
        mov $LENGTH, %ecx
        rep stosb
        xor %r12d, %r12d
        mov $TIMES, %ebp
4:      movl $100000, 0x380(%r9)
        mov $0x200000, %esi
        mov $0xa00000, %edi
        mov $LENGTH, %ecx
        sti
        rep movsb
        cli
        cmp $0x200000 + LENGTH, %rsi
        EXPECT 6
        cmp $0xa00000 + LENGTH, %rdi
        EXPECT 7
        test %rcx, %rcx
        EXPECT 8
        dec %ebp
        jnz 4b
        test %r12, %r12
        jnz 5f
        EXIT 9
5:      mov $0xa00000, %edi
        mov $LENGTH, %ecx
        mov $0x55, %al
        repe scasb
        EXPECT 10
        EXIT 0

on_timer:
        inc %r12
        EOI
        iretq
on_ipi: inc %r13
        EOI
        iretq
on_nmi: inc %r14
        iretq
        GDT
