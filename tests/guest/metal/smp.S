/* Four CPUs: INIT and SIPI, locked additions that must not be lost, a ticket lock, an interrupt from one to all. */
#include "metal.inc"
        .set CPUS, 4
#ifdef SLOW
        .set ROUNDS, 300
#else
        .set ROUNDS, 50000
#endif
        .set COUNT, 0x200000
        .set TICKET, 0x200040
        .set SERVING, 0x200044
        .set PLAIN, 0x200080
        .set READY, 0x2000c0
        .set DONE, 0x200140
        .set HIT, 0x200100
        .code16
        .globl _start
_start: START_LONG
        APIC_ON
        GATE 0x50, on_ipi
        movl $0, COUNT
        movl $0, TICKET
        movl $0, SERVING
        movl $0, PLAIN
        movl $0, READY
        movl $0, HIT
        movl $0, DONE
        movq $0, COUNT+8
        mov $1, %ebx
1:      mov %ebx, %eax
        shl $24, %eax
        mov %eax, 0x310(%r9)
        movl $0x4500, 0x300(%r9)
        movl $0x4602, 0x300(%r9)
        inc %ebx
        cmp $CPUS, %ebx
        jne 1b
        xor %r8d, %r8d
        jmp work

        .org 0x1000 /* SIPI vector 2 */
        .code16
ap:     cli
        xor %ax, %ax
        mov %ax, %ds
        lgdtl gdtr
        mov %cr0, %eax
        or $1, %eax
        mov %eax, %cr0
        ljmpl $SEL_CODE32, $2f
        .code32
2:      mov $SEL_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        TO_LONG
        lidt IDT-16
        APIC_ON
        mov 0x20(%r9), %r8d
        shr $24, %r8d
        mov %r8d, %esp
        shl $12, %esp
        add $0x80000, %esp

work:   lock incl READY
3:      pause
        cmpl $CPUS, READY
        jne 3b
        mov $ROUNDS, %ebx
4:      lock incl COUNT
        mov $1, %eax
        lock xadd %rax, COUNT+8
        mov $1, %eax
        lock xadd %eax, TICKET
5:      cmp %eax, SERVING
        je 6f
        pause
        jmp 5b
6:      incl PLAIN
        incl SERVING
        dec %ebx
        jnz 4b
        lock incl DONE
        test %r8d, %r8d
        jnz others

7:      pause
        cmpl $CPUS, DONE
        jne 7b
        cmpl $CPUS*ROUNDS, COUNT
        EXPECT 1
        cmpq $CPUS*ROUNDS, COUNT+8
        EXPECT 2
        cmpl $CPUS*ROUNDS, PLAIN
        EXPECT 3
        mov $1, %ebx
8:      mov %ebx, %eax
        shl $24, %eax
        mov %eax, 0x310(%r9)
        movl $0x4050, 0x300(%r9)
        inc %ebx
        cmp $CPUS, %ebx
        jne 8b
10:     pause
        cmpl $CPUS-1, HIT
        jne 10b
        EXIT 0

others: sti
11:     hlt
        jmp 11b
on_ipi: lock incl HIT
        EOI
        iretq
        GDT
