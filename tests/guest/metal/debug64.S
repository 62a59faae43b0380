/* Debug exceptions, double faults, and the fast system calls, in long mode. A failing check ends the guest with its number. */
#include "metal.inc"
        .set IDT, 0x200000
        .set KSTACK, 0x70000
        .set USTACK, 0x78000
        .set DF_STACK, 0x6e000
        .set DATA, 0x300000

        .code16
        .globl _start
_start: TO_PROTECTED
        mov $KSTACK, %esp
        MAKE_TABLES
        TO_LONG
        mov $KSTACK, %rsp
        mov $SEL_DATA, %eax
        mov %eax, %ss
        movq $KSTACK, tss + 4
        movq $DF_STACK, tss + 0x24
        mov $tss, %eax
        mov %ax, gdt_tss + 2
        shr $16, %eax
        mov %al, gdt_tss + 4
        mov $SEL_TSS, %eax
        ltr %ax
        xor %edi, %edi
        mov $0x8e00, %ecx
        mov $other, %eax
1:      call set_gate
        inc %edi
        cmp $32, %edi
        jne 1b
        mov $1, %edi
        mov $db, %eax
        call set_gate
        mov $8, %edi
        mov $df, %eax
        mov $0x8e01, %ecx
        call set_gate
        mov $0x51, %edi
        mov $int51, %eax
        mov $0x8e00, %ecx
        call set_gate
        lidt idtr

        /* ---- single-step: each instruction traps after it, but POPF that sets TF does not ---- */
        movq $0, count
        pushfq
        orl $0x100, (%rsp)
        popfq
        nop                        /* 1 */
        nop                        /* 2 */
        pushfq                     /* 3: the image has TF */
        pop %rbx                   /* 4 */
        mov $SEL_DATA, %eax        /* 5 */
        mov %eax, %ss              /* held off … */
        nop                        /* 6: … to here */
        pushfq                     /* 7 */
        andl $~0x100, (%rsp)       /* 8 */
        popfq                      /* 9: TF was set when it began */
        cmpq $9, count
        EXPECT 10
        test $0x100, %ebx
        jnz 30f
        EXIT 11
30:     mov %dr6, %rax
        test $0x4000, %eax         /* BS */
        jnz 30f
        EXIT 12
30:
        /* INT3 with TF: no trap of its own, TF clear in the handler */
        movq $0, count
        pushfq
        orl $0x100, (%rsp)
        popfq
        int $0x51
        pushfq
        andl $~0x100, (%rsp)
        popfq
        cmpq $3, count
        EXPECT 13

        /* ---- instruction breakpoint: a fault before it; RF lets it pass ---- */
        call clear
        mov $31f, %eax
        mov %rax, %dr0
        mov $0x402, %eax           /* G0, execute */
        mov %rax, %dr7
        mov $5, %ebx
31:     inc %ebx
        cmp $6, %ebx
        EXPECT 20
        cmpq $1, count
        EXPECT 21
        cmpq $31b, db_rip
        EXPECT 22
        mov %dr6, %rax
        and $0xf00f, %eax
        cmp $1, %eax
        EXPECT 23

        /* ---- data breakpoints: traps after the instruction ---- */
        call clear
        mov $DATA + 8, %eax
        mov %rax, %dr1
        mov $0xd00408, %eax        /* G1, write, 4 bytes */
        mov %rax, %dr7
        mov DATA + 8, %eax         /* reading does not match */
        movl $1, DATA + 12
        movl $1, DATA + 4
        cmpq $0, count
        EXPECT 30
        movb $1, DATA + 11
32:     cmpq $1, count
        EXPECT 31
        cmpq $32b, db_rip
        EXPECT 32
        mov $0xf00408, %eax        /* read or write */
        mov %rax, %dr7
        mov DATA + 5, %rax         /* overlaps by its end */
        cmpq $2, count
        EXPECT 33
        mov $DATA, %esi
        mov $DATA + 0x100, %edi
        mov $8, %ecx
        rep movsl                  /* notices it in the middle */
        cmpq $2, count
        ja 30f
        EXIT 34
30:     mov $0xa00408, %eax        /* I/O, with CR4.DE */
        mov %rax, %dr7
        mov %cr4, %rax
        or $8, %eax
        mov %rax, %cr4
        mov $0x80, %eax
        mov %rax, %dr1
        movq $0, count
        out %al, $0x80
        cmpq $1, count
        EXPECT 35
        /* general detect: a fault at MOV DR, and GD is cleared for the handler */
        call clear
        mov $0x2400, %eax
        mov %rax, %dr7
36:     mov %dr0, %rax
        cmpq $1, count
        EXPECT 36
        cmpq $36b, db_rip
        EXPECT 37
        mov %dr6, %rax
        test $0x2000, %eax
        jnz 30f
        EXIT 38
30:     call clear
        int1
37:     cmpq $37b, db_rip
        EXPECT 39

        /* ---- SYSCALL, SYSRET, SYSENTER, SYSEXIT ---- */
        mov $0xc0000081, %ecx
        xor %eax, %eax
        mov $(SEL_CODE64 | (SEL_UCODE64 - 16 | 3) << 16), %edx
        wrmsr
        mov $0xc0000082, %ecx
        mov $entry, %eax
        xor %edx, %edx
        wrmsr
        mov $0xc0000084, %ecx
        mov $0x600, %eax           /* IF and DF */
        wrmsr
        push $SEL_UDATA + 3
        push $USTACK
        push $0x602
        push $SEL_UCODE64 + 3
        push $user
        iretq
user:   mov $1, %edi
        syscall
40:     mov $2, %edi
        push $-1                   /* the user's stack works */
        pop %rax
        syscall
41:     nop
entry:  mov %cs, %eax
        cmp $SEL_CODE64, %eax
        EXPECT 40
        mov %ss, %eax
        cmp $SEL_DATA, %eax
        EXPECT 41
        cmp $0x602, %r11
        EXPECT 42
        pushfq
        pop %rax
        test $0x600, %eax
        EXPECT 43
        cmp $2, %edi
        je 42f
        cmp $40b, %rcx
        EXPECT 44
        cmp $USTACK, %rsp          /* SYSCALL leaves RSP */
        EXPECT 45
        sysretq
42:     cmp $41b, %rcx
        EXPECT 46
        mov $KSTACK, %rsp
        movabs $0x800000000000, %rcx
        movq $43f, resume
        sysretq                    /* non-canonical: #GP at ring 0 */
43:     cmpq $1, others
        EXPECT 47
        mov $0x174, %ecx
        mov $SEL_CODE64, %eax
        xor %edx, %edx
        wrmsr
        inc %ecx
        mov $KSTACK, %eax
        wrmsr
        inc %ecx
        mov $44f, %eax
        wrmsr
        mov $USTACK, %ecx
        mov $45f, %edx
        sysexitq
45:     mov %cs, %eax
        cmp $SEL_CODE64 + 32 + 3, %eax
        EXPECT 48
        cmp $USTACK, %rsp
        EXPECT 49
        sysenter
44:     mov %cs, %eax
        cmp $SEL_CODE64, %eax
        EXPECT 50
        cmp $KSTACK, %rsp
        EXPECT 51

        /* ---- double fault: #GP whose gate is absent, on the IST stack; error code 0 ---- */
        movb $0, IDT + 13 * 16 + 5
        movabs $0x8000000000000000, %rbx
        movq $46f, resume
        mov (%rbx), %al
        EXIT 60
46:     cmpq $DF_STACK - 48, df_rsp
        EXPECT 61
        cmpq $0, df_error
        EXPECT 62
        EXIT 0

clear:  xor %eax, %eax
        mov %rax, %dr7
        mov %rax, %dr6
        movq $0, count
        ret
db:     incq count
        push %rax
        mov 8(%rsp), %rax
        mov %rax, db_rip
        mov %dr6, %rax
        test $1, %eax
        jz 1f
        orl $0x10000, 24(%rsp)     /* RF: past the breakpoint */
1:      pop %rax
        iretq
other:  incq others
        mov $KSTACK, %rsp
        jmp *resume
df:     mov %rsp, df_rsp
        mov (%rsp), %rax
        mov %rax, df_error
        mov $KSTACK, %rsp
        jmp *resume
int51:  iretq

set_gate: /* EDI vector, EAX target, ECX type << 8 | IST */
        mov %edi, %edx
        shl $4, %edx
        add $IDT, %edx
        mov %ax, (%rdx)
        movw $SEL_CODE64, 2(%rdx)
        mov %cl, 4(%rdx)
        mov %ch, 5(%rdx)
        push %rax
        shr $16, %eax
        mov %ax, 6(%rdx)
        movq $0, 8(%rdx)
        pop %rax
        ret
        GDT
        .balign 8
idtr:   .word 0x52 * 16 - 1
        .quad IDT
        .balign 8
count:  .quad 0
others: .quad 0
db_rip: .quad 0
df_rsp: .quad 0
df_error: .quad 0
resume: .quad 0
        .balign 16
tss:    .fill 104
