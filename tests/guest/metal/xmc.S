/*
 * Code that another CPU changes: CPU 0 rewrites a function that CPU 1 calls all the time, tells it by an interrupt, and from then on CPU 1
 * must run the new one. Both write data beside the code meanwhile.
 */
#include "metal.inc"
        .set ROUNDS, 300
        .set FUNC, 0x300000
        .set DATA, 0x300100 /* same page, another line */
        .set SEEN, 0x301000
        .set ACK, 0x301040
        .code16
        .globl _start
_start: START_LONG
        mov $APIC, %r9d
        GATE 0x50, on_ipi
        movb $0xb8, FUNC /* mov $imm32, %eax; ret */
        movl $0, FUNC+1
        movb $0xc3, FUNC+5
        movl $0, SEEN
        movl $0, ACK
        movl $1 << 24, 0x310(%r9)
        movl $0x4500, 0x300(%r9)
        movl $0x4602, 0x300(%r9)
        mov $1, %ebx
1:      mov %ebx, FUNC+1
        movl $0x4050, 0x300(%r9)
2:      pause
        incl DATA
        cmp %ebx, ACK
        jne 2b
        /* two calls later the value must be there */
        mov SEEN+8, %rcx
        add $2, %rcx
3:      pause
        cmp %rcx, SEEN+8
        jb 3b
        cmp %ebx, SEEN
        EXPECT 1
        inc %ebx
        cmp $ROUNDS, %ebx
        jne 1b
        EXIT 0

        .org 0x1000 /* SIPI vector 2 */
        .code16
        cli
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
        mov $0x80000, %esp
        mov $FUNC, %edx
        sti
4:      call *%rdx
        mov %eax, SEEN
        lock incq SEEN+8
        incl DATA+64
        jmp 4b
on_ipi: push %rax
        incl ACK
        pop %rax
        iretq
        GDT
