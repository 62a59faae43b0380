/* String instructions: overlap, both directions, all ends of pages, conditions, a fault in the middle, 32-bit counts, real-mode wrap. */
#include "metal.inc"
        .code16
        .globl _start
_start: /* 16-bit: SI and DI wrap, the count is CX */
        xor %ax, %ax
        mov %ax, %ds
        mov $0x2000, %ax
        mov %ax, %es
        mov $0xfffe, %di
        mov $0x12340004, %ecx
        mov $0x5a, %al
        cld
        rep stosb
        cmp $2, %di
        EXPECT 1
        cmp $0x12340000, %ecx
        EXPECT 2
        cmpw $0x5a5a, %es:0
        EXPECT 3
        cmpw $0x5a5a, %es:0xfffe
        EXPECT 4
        START_LONG
        GATE 14, on_pf
        /* overlapping forward copy repeats the pattern */
        mov $0x200ff0, %edi
        mov $0x0807060504030201, %rax
        mov %rax, (%rdi)
        lea (%rdi), %rsi
        add $8, %rdi
        mov $0x1000, %ecx
        rep movsb
        cmpq %rdi, %rsi
        je bad
        mov $0x0807060504030201, %rax
        cmp %rax, 0x201fe8
        EXPECT 5
        cmp %rax, 0x200ff8
        EXPECT 6
        cmp $0x201ff8, %rdi
        EXPECT 7
        /* overlapping by one byte */
        movb $0x77, 0x300000
        mov $0x300000, %esi
        mov $0x300001, %edi
        mov $5000, %ecx
        rep movsb
        cmpb $0x77, 0x300000+5000
        EXPECT 8
        /* backwards */
        std
        mov $0x300000+5000, %esi
        movb $0x78, (%rsi)
        mov $0x300000+6000, %edi
        mov $100, %ecx
        rep movsb
        cld
        cmpb $0x78, 0x300000+6000
        EXPECT 9
        cmp $0x300000+5900, %rdi
        EXPECT 10
        /* elements that straddle pages */
        mov $0x400ffd, %edi
        mov $0x1122334455667788, %rax
        mov $1000, %ecx
        rep stosq
        cmp %rax, 0x400ffd
        EXPECT 11
        cmp %rax, 0x400ffd + 999*8
        EXPECT 12
        mov $0x400ffd, %edi
        mov $1000, %ecx
        repe scasq
        EXPECT 13
        test %ecx, %ecx
        EXPECT 14
        movb $1, 0x400ffd + 500*8
        mov $0x400ffd, %edi
        mov $1000, %ecx
        repe scasq
        cmp $499, %ecx
        EXPECT 15
        mov $0x400ffd, %esi
        mov $0x400ffd + 8, %edi
        mov $1000, %ecx
        repe cmpsq
        cmp $500, %ecx
        EXPECT 16
        /* REPNE finds */
        mov $0x400ffd, %edi
        mov $10000, %ecx
        mov $1, %al
        repne scasb
        EXPECT 17
        cmp $0x400ffd + 500*8 + 1, %rdi
        EXPECT 18
        /* the end of memory: everything up to it is written, registers say how far */
        mov $0x1ffff00, %edi
        mov $0x1000, %ecx
        mov $0x99, %al
        xor %r15d, %r15d
        rep stosb
        cmp $1, %r15
        EXPECT 19
        cmp $0x2000000, %r14
        EXPECT 20
        cmp $0xf00, %r13
        EXPECT 21
        cmpb $0x99, 0x1ffffff
        EXPECT 22
        /* no count, no access */
        mov $0x50000000, %edi
        xor %ecx, %ecx
        rep stosb
        cmp $1, %r15
        EXPECT 23
#ifndef SLOW /* a KVM that emulates clears them always */
        /* 32-bit address size clears upper halves only if it counts */
        mov $-1, %rcx
        shl $32, %rcx
        addr32 rep stosb
        mov %rcx, %rax
        shr $32, %rax
        cmp $0xffffffff, %eax
        EXPECT 24
#endif
        EXIT 0
bad:    EXIT 30
on_pf:  inc %r15
        mov %rdi, %r14
        mov %rcx, %r13
        xor %ecx, %ecx
        add $8, %rsp
        iretq
        GDT
