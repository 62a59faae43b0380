/* Interrupts: HLT woken by the timer, the shadow of STI, an interrupt in a REP, NMI to oneself, IF respected. */
#include "metal.inc"
        .code16
        .globl _start
_start: START_LONG
        mov $APIC, %r9d
        GATE 2, on_nmi
        GATE 0x40, on_timer
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
        mov $0x800000, %ecx
        rep stosb
        xor %r12d, %r12d
        mov $40, %ebp
4:      movl $100000, 0x380(%r9)
        mov $0x200000, %esi
        mov $0xa00000, %edi
        mov $0x800000, %ecx
        sti
        rep movsb
        cli
        cmp $0xa00000, %rsi
        EXPECT 6
        cmp $0x1200000, %rdi
        EXPECT 7
        test %rcx, %rcx
        EXPECT 8
        dec %ebp
        jnz 4b
        test %r12, %r12
        jnz 5f
        EXIT 9
5:      mov $0xa00000, %edi
        mov $0x800000, %ecx
        mov $0x55, %al
        repe scasb
        EXPECT 10
        EXIT 0

on_timer:
        inc %r12
        iretq
on_ipi: inc %r13
        iretq
on_nmi: inc %r14
        iretq
        GDT
