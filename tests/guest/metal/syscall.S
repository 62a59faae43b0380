/* User code that calls the kernel by SYSCALL, thousands of times, from pages of its own; a page fault of its own is told from a call. */
#include "metal.inc"
        .set ROUNDS, 3000
        .set USER, 0x200000 /* the user's page; everything else is the kernel's */
        .code16
        .globl _start
_start: START_LONG
        andl $~4, 0x102000
        mov %cr3, %rax
        mov %rax, %cr3
        GATE 13, on_gp
        GATE 14, on_pf
        mov $0xc0000081, %ecx /* STAR, LSTAR, FMASK */
        xor %eax, %eax
        mov $((SEL_DATA+8) << 16) | SEL_CODE64, %edx
        wrmsr
        mov $0xc0000082, %ecx
        lea on_syscall(%rip), %rax
        xor %edx, %edx
        wrmsr
        mov $0xc0000084, %ecx
        mov $0x200, %eax
        wrmsr
        lea user(%rip), %rsi
        mov $USER, %edi
        mov $user_end - user, %ecx
        rep movsb
        xor %r12d, %r12d
        pushq $SEL_UDATA+3
        pushq $USER + 0x1000
        pushq $0x202
        pushq $SEL_UCODE64+3
        pushq $USER
        iretq

user:   mov $ROUNDS, %ebx
1:      mov $1000, %ecx
2:      dec %ecx
        jnz 2b
        xor %eax, %eax
        syscall
        dec %ebx
        jnz 1b
        mov $0x5000, %edi
        mov (%rdi), %eax /* the kernel's */
        mov $1, %eax
        syscall
user_end:

on_syscall:
        swapgs
        mov %cs, %r8d
        cmp $SEL_CODE64, %r8w
        EXPECT 1
        mov %ss, %r8d
        cmp $SEL_CODE64+8, %r8w
        EXPECT 2
        cmp $USER + 0x1000, %rsp
        EXPECT 3
        test $0x200, %r11d
        jnz 1f
        EXIT 4
1:      test %eax, %eax
        jnz last
        inc %r12d
        swapgs
        sysretq
last:   cmp $ROUNDS, %r12d
        EXPECT 5
        cmp $1, %r13d
        EXPECT 6
        EXIT 0

on_pf:  cmpq $5, (%rsp) /* the user read a page that is there */
        EXPECT 7
        mov %cr2, %rax
        cmp $0x5000, %rax
        EXPECT 8
        inc %r13d
        addq $2, 8(%rsp)
        movq $SEL_UDATA+3, 40(%rsp) /* SYSRET left another selector */
        add $8, %rsp
        iretq
on_gp:  EXIT 9
        GDT
