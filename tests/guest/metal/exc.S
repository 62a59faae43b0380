/* Exceptions in long mode: vector, error code, saved RIP and CR2; single-step; user mode by IRETQ and SYSCALL and back. */
#include "metal.inc"
        .code16
        .globl _start
_start: START_LONG
        GATE 0, on_de
        GATE 1, on_db
        GATE 3, on_bp, 0xee00
        GATE 6, on_ud
        GATE 13, on_gp
        GATE 14, on_pf
        GATE 0x80, on_int80, 0xee00

        /* divide error: fault, RIP at the DIV */
        mov $7, %eax
        xor %edx, %edx
        xor %ecx, %ecx
de:     div %ecx
        cmp $1, %r15
        EXPECT 1
        lea de(%rip), %rax
        cmp %rax, %r14
        EXPECT 2

        /* invalid opcode; LOCK where it is not allowed */
ud:     ud2
        cmp $6, %r15
        EXPECT 3
        .byte 0xf0, 0x89, 0xc0 /* lock mov */
        nop
        cmp $6, %r15
        EXPECT 4

        /* breakpoint: trap, RIP after it */
bp:     int3
        lea bp+1(%rip), %rax
        cmp %rax, %r14
        EXPECT 5

        /* a non-canonical address, and one that is not mapped */
        mov $0x800000000000, %rbx
gp:     mov (%rbx), %rax
        nop
        cmp $13, %r15
        EXPECT 6
        test %r13, %r13
        EXPECT 7
        mov $0x40000000, %ebx
pf:     movl $5, 12(%rbx)
        cmp $14, %r15
        EXPECT 8
        cmp $2, %r13 /* write, not present, supervisor */
        EXPECT 9
        mov %cr2, %rax
        cmp $0x4000000c, %rax
        EXPECT 10
        /* nothing of a store that crosses into a missing page may be seen */
        movq $-1, 0x1fffff8
        movq $0, 0x1fffffc
        cmp $14, %r15
        EXPECT 11
        mov %cr2, %rax
        cmp $0x2000000, %rax
        EXPECT 12
#ifndef SLOW /* a KVM that emulates writes the first page's part */
        cmpq $-1, 0x1fffff8
        EXPECT 13
#endif

        /* single-step: one trap for each instruction, the one after POPF first */
        xor %r12d, %r12d
        pushfq
        orl $0x100, (%rsp)
        popfq
        nop
        inc %eax
        pushfq
        andl $~0x100, (%rsp)
        popfq
        nop
        cmp $5, %r12
        EXPECT 14

        /* to user mode and back */
        mov $0xc0000081, %ecx /* STAR, LSTAR, FMASK */
        xor %eax, %eax
        mov $((SEL_DATA+8) << 16) | SEL_CODE64, %edx
        wrmsr
        mov $0xc0000082, %ecx
        lea on_syscall(%rip), %rax
        mov %rax, %rdx
        shr $32, %rdx
        wrmsr
        mov $0xc0000084, %ecx
        mov $0x200, %eax
        xor %edx, %edx
        wrmsr
        pushq $SEL_UDATA+3
        pushq $0x9f000
        pushq $0x202
        pushq $SEL_UCODE64+3
        lea user(%rip), %rax
        push %rax
        iretq

user:   mov %cs, %ax
        cmp $SEL_UCODE64+3, %ax
        jne bad
        mov $0xfee00020, %edi /* supervisor page */
        xor %r15d, %r15d
upf:    mov (%rdi), %eax
        cmp $14, %r15
        jne bad
        cmp $5, %r13 /* present, user, read */
        jne bad
        xor %r15d, %r15d
        cli
        cmp $13, %r15 /* CLI needs IOPL */
        jne bad
        push $0x55
        syscall
usys:   int3
        int $0x80 /* comes back in supervisor mode */
bad:    mov $99, %eax
        int $0x80

on_syscall:
        lea usys(%rip), %rax
        cmp %rax, %rcx
        jne bad
        pushfq
        pop %rax
        test $0x200, %eax
        jnz bad
        mov $0x77, %ebx
        mov %rcx, %r10
        lea gone_on(%rip), %rcx
        sysretq
gone_on:
        mov %cs, %ax
        cmp $SEL_UCODE64+3, %ax
        jne bad
        xor %eax, %eax
        int $0x80

on_int80:
        test %eax, %eax
        jz 1f
        EXIT 20
1:      cmpq $SEL_UCODE64+3, 8(%rsp)
        EXPECT 21
        cmp $0x77, %ebx
        EXPECT 22
        lea 40(%rsp), %rax /* it came by RSP0 */
        cmp $0x6000, %rax
        EXPECT 23
        EXIT 0

        /* Each handler leaves vector in R15, RIP in R14, error code in R13, and skips the instruction where it is a fault. */
on_de:  mov $1, %r15d
        pop %r14
        add $2, %r14
        push %r14
        sub $2, %r14
        iretq
on_ud:  mov $6, %r15d
        pop %r14
        cmpw $0x0b0f, (%r14)
        lea 2(%r14), %r14
        je 1f
        add $2, %r14
1:      push %r14
        iretq
on_bp:  mov $3, %r15d
        mov (%rsp), %r14
        iretq
on_db:  inc %r12
        iretq
on_gp:  mov $13, %r15d
        pop %r13
        mov (%rsp), %r14
        cmpb $0xfa, (%r14)
        je 1f
        add $2, %r14
1:      inc %r14
        mov %r14, (%rsp)
        iretq
on_pf:  mov $14, %r15d
        pop %r13
        mov (%rsp), %r14
        cmpb $0xc7, (%r14) /* MOVL $, 12(%rbx) */
        je 3f
        cmpb $0x48, (%r14) /* MOVQ $, abs */
        je 4f
        add $2, %r14
        jmp 5f
3:      add $7, %r14
        jmp 5f
4:      add $12, %r14
5:      mov %r14, (%rsp)
        iretq
        GDT
