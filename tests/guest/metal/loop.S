/* An integer loop of the kind that speed is measured with: 20 million rounds of 10 instructions. */
#include "metal.inc"
        .code16
        .globl _start
_start: TO_PROTECTED
        MAKE_TABLES
        TO_LONG
        mov $0x7000, %rsp
        mov $20000000, %ecx
        xor %eax, %eax
        mov $0x200000, %rdi
1:      mov %rax, (%rdi)
        lea 3(%rax,%rcx,2), %rdx
        xor %rdx, %rax
        add (%rdi), %rax
        shr $3, %rdx
        add %rdx, %rbx
        and $0xff, %edx
        mov %rbx, 8(%rdi,%rdx,8)
        dec %ecx
        jnz 1b
        EXIT 0
        GDT
