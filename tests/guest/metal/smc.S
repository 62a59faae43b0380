/* Code that changes: in the running block, in a loop, across a page border, next to data, by string instructions, through another mapping. */
#include "metal.inc"
        .code16
        .globl _start
_start: START_LONG
        /* the very next instruction */
        movb $2, 1f+1(%rip)
1:      mov $1, %al
        cmp $2, %al
        EXPECT 1

        /* an immediate in a loop, a thousand times */
        mov $1000, %ecx
        xor %ebx, %ebx
2:      mov %ecx, 3f+1(%rip)
3:      mov $0, %eax
        add %eax, %ebx
        dec %ecx
        jnz 2b
        cmp $500500, %ebx
        EXPECT 2

        /* data beside code in one page: must stay correct (and should stay quick) */
        mov $100000, %ecx
4:      incl counter(%rip)
        dec %ecx
        jnz 4b
        cmpl $100000, counter(%rip)
        EXPECT 3

        /* mov $imm32, %eax with the immediate in the next page; then RET */
        mov $0x300ffd, %edi
        movb $0xb8, (%rdi)
        movl $0x11111111, 1(%rdi)
        movb $0xc3, 5(%rdi)
        call *%rdi
        cmp $0x11111111, %eax
        EXPECT 4
        movb $0x22, 4(%rdi)
        call *%rdi
        cmp $0x22111111, %eax
        EXPECT 5
        movb $0x33, 2(%rdi)
        call *%rdi
        cmp $0x22113311, %eax
        EXPECT 6

        /* whole functions replaced by REP MOVS */
        mov $100, %ebx
5:      lea one(%rip), %rsi
        mov $0x302000, %edi
        mov $one_end - one, %ecx
        rep movsb
        mov $0x302000, %eax
        call *%rax
        cmp $1, %eax
        EXPECT 7
        lea two(%rip), %rsi
        mov $0x302000, %edi
        mov $two_end - two, %ecx
        rep movsb
        mov $0x302000, %eax
        call *%rax
        cmp $2, %eax
        EXPECT 8
        dec %ebx
        jnz 5b

        /* written by a device */
        mov $0xb8, %eax
        mov %eax, 0x500000 /* mov $0, %eax; ret */
        movw $0xc300, 0x500004
        mov $0x500000, %edx
        call *%rdx
        test %eax, %eax
        EXPECT 13
        mov $0x66500003, %eax
        out %eax, $0xf8
        call *%rdx
        cmp $0x660000, %eax
        EXPECT 14

        /* the same page through another linear address: 0x40200000 maps to 0x200000 */
        movl $0x104007, 0x101008
        movl $0x200087, 0x104008
        mov %cr3, %rax
        mov %rax, %cr3
        movl $0xc3c03100 | 0x90, 0x203000 /* nop; xor %eax, %eax; ret */
        mov $0x203000, %edx
        mov $5, %eax
        call *%rdx
        test %eax, %eax
        EXPECT 9
        movw $0xc0ff, 0x40203001 /* inc %eax */
        mov $5, %eax
        call *%rdx
        cmp $6, %eax
        EXPECT 10

        /* another page behind the same linear address, told by INVLPG */
        mov $0x40203000, %edx
        mov $5, %eax
        call *%rdx
        cmp $6, %eax
        EXPECT 11
        movl $0xc3c8ff90, 0x403000 /* nop; dec %eax; ret */
        movl $0x400087, 0x104008
        invlpg (%rdx)
        mov $5, %eax
        call *%rdx
        cmp $4, %eax
        EXPECT 12
        EXIT 0
one:    mov $1, %eax
        ret
one_end:
two:    mov $2, %eax
        ret
two_end:
counter:
        .long 0
        GDT
