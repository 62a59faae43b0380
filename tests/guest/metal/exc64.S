/*
 * Exceptions in long mode: vector, error code, saved RIP, RF, CR2, stacks, privilege changes, debug exceptions. Each check that fails ends
 * the guest with its own number.
 */
#include "metal.inc"
        .set IDT, 0x200000
        .set PT, 0x105000          /* 4 KiB pages for 0x400000.. */
        .set PAGE_RO, 0x400000
        .set PAGE_NX, 0x401000
        .set PAGE_NONE, 0x402000
        .set PAGE_SUPER, 0x403000
        .set PAGE_RSVD, 0x404000
        .set PAGE_SEL, 0x405000
        .set KSTACK, 0x70000
        .set USTACK, 0x78000
        .set IST_STACK, 0x6e000

        /* Runs one instruction that must fault so. */
        .macro FAULTS n, vec, err, insn:vararg
        movq $8f, resume
        movq $-1, got_vec
        movq $18f, want_rip
18:     \insn
        EXIT \n
8:      cmpq $\vec, got_vec
        EXPECT \n
        cmpq $\err, got_err
        EXPECT \n
        mov got_rip, %rax
        cmp want_rip, %rax
        EXPECT \n
        .endm

        .macro SET_GATE vec, target, type, ist
        mov $\vec, %edi
        mov $\target, %eax
        mov $(\type << 8 | \ist), %ecx
        call set_gate
        .endm

        .code16
        .globl _start
_start: TO_PROTECTED
        mov $KSTACK, %esp
        MAKE_TABLES
        /* 4 MiB.. by 4 KiB pages */
        movl $(PT | 7), 0x102010
        movl $0, 0x102014
        mov $PT, %edi
        mov $0x400007, %eax
        mov $512, %ecx
1:      mov %eax, (%edi)
        movl $0, 4(%edi)
        add $0x1000, %eax
        add $8, %edi
        loop 1b
        andl $~2, PT               /* read-only */
        movl $0x80000000, PT + 8 + 4
        andl $~1, PT + 16
        andl $~4, PT + 24
        movl $0x00080000, PT + 32 + 4 /* bit 51 */
        TO_LONG
        mov $KSTACK, %rsp
        mov $SEL_DATA, %eax
        mov %eax, %ss
        mov %cr0, %rax
        or $0x10000, %eax          /* WP */
        mov %rax, %cr0

        /* TSS: RSP0, IST1; the I/O bitmap follows */
        movq $KSTACK, tss + 4
        movq $IST_STACK, tss + 0x24
        mov $tss, %eax
        mov %ax, gdt_tss + 2
        shr $16, %eax
        mov %al, gdt_tss + 4
        movw $(tss_end - tss - 1), gdt_tss
        mov $SEL_TSS, %eax
        ltr %ax
        str %ecx
        cmp $SEL_TSS, %ecx
        EXPECT 2
        testb $2, gdt_tss + 5      /* busy now */
        jnz 31f
        EXIT 2
31:
        /* IDT: 32 exceptions to stubs of 16 bytes, then some of our own */
        xor %edi, %edi
1:      mov %edi, %eax
        shl $4, %eax
        add $stubs, %eax
        mov $0x8e00, %ecx
        call set_gate
        inc %edi
        cmp $32, %edi
        jne 1b
        SET_GATE 0x50, int50, 0x8e, 0
        SET_GATE 0x51, int51, 0xee, 0
        SET_GATE 0x52, int52, 0xee, 1
        lidt idtr

        /* ---- faults in ring 0 ---- */
        FAULTS 10, 6, 0, ud2
        testl $0x10000, got_flags  /* faults save RF */
        jnz 31f
        EXIT 11
31:     xor %ecx, %ecx
        FAULTS 12, 0, 0, div %ecx
        movabs $0x8000000000000000, %rbx
        FAULTS 13, 13, 0, mov (%rbx), %al
        mov %rbx, %rbp
        FAULTS 14, 12, 0, mov (%rbp), %al
        FAULTS 15, 14, 2, movb $1, PAGE_NONE
        mov %cr2, %rax
        cmp $PAGE_NONE, %rax
        EXPECT 16
        FAULTS 17, 14, 0, mov (PAGE_NONE + 0x123), %al
        FAULTS 18, 14, 3, movb $1, PAGE_RO
        FAULTS 19, 14, 9, mov PAGE_RSVD, %al
        mov $PAGE_NX, %ebx
        movq $PAGE_NX, want
        movq $32f, resume
        jmp *%rbx
32:     cmpq $14, got_vec
        EXPECT 20
        cmpq $0x11, got_err
        EXPECT 20
        cmpq $PAGE_NX, got_rip
        EXPECT 20
        mov $0x1230, %eax
        FAULTS 21, 13, 0x1230, mov %eax, %ds
        mov $SEL_ABSENT, %eax
        FAULTS 22, 11, SEL_ABSENT, mov %eax, %es
        mov $SEL_ABSENT, %eax
        FAULTS 23, 12, SEL_ABSENT, mov %eax, %ss
        mov $SEL_CODE64, %eax
        FAULTS 24, 13, SEL_CODE64, mov %eax, %ss
        mov $SEL_UDATA + 3, %eax
        FAULTS 25, 13, SEL_UDATA, mov %eax, %ss
        FAULTS 26, 13, 0x302, int $0x60 /* beyond the IDT */
        mov $0x12345, %ecx
        FAULTS 27, 13, 0, rdmsr
        mov %cr4, %rax
        bts $22, %rax              /* protection keys: not offered */
        FAULTS 28, 13, 0, mov %rax, %cr4
        mov %cr0, %rax
        btr $0, %rax
        FAULTS 29, 13, 0, mov %rax, %cr0
        /* null selectors are fine in data segments and, at ring 0, in SS */
        xor %eax, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov PAGE_RO, %al
        /* the return frame: 16-byte aligned stack, RIP after the instruction */
        mov $KSTACK - 24, %rsp
        int $0x50
50:     mov $KSTACK, %rsp
        mov int50_rsp, %rax
        cmp $(KSTACK - 32 - 40), %rax
        EXPECT 30
        cmpq $50b, got_rip
        EXPECT 31
        int $0x52                  /* IST */
        cmpq $IST_STACK - 40, int50_rsp
        EXPECT 32
        movq $8f, resume
        int3
77:     nop
        EXIT 33
8:      cmpq $3, got_vec
        EXPECT 33
        cmpq $77b, got_rip
        EXPECT 33
        testl $0x10000, got_flags  /* traps do not save RF */
        jz 31f
        EXIT 34
31:
        /* ---- ring 3 ---- */
        .macro USER target
        movq $\target, user_rip
        call enter_user
        .endm
        .macro USER_FAULTS n, vec, err, target
        movq $8f, resume
        USER \target
8:      cmpq $\vec, got_vec
        EXPECT \n
        cmpq $\err, got_err
        EXPECT \n
        cmpq $SEL_UCODE64 + 3, got_cs
        EXPECT \n
        cmpq $\target, got_rip
        EXPECT \n
        .endm
        USER_FAULTS 40, 13, 0, u_cli
        USER_FAULTS 41, 13, 0, u_hlt
        USER_FAULTS 42, 13, 0, u_cr
        USER_FAULTS 43, 13, 0x282, u_int50
        USER_FAULTS 44, 14, 5, u_super
        USER_FAULTS 45, 14, 6, u_none
        USER_FAULTS 46, 6, 0, u_ud
        USER_FAULTS 47, 13, 0, u_out_denied
        USER_FAULTS 48, 13, 0, u_msr
        cmpq $USTACK, got_rsp
        EXPECT 49
        cmpq $SEL_UDATA + 3, got_ss
        EXPECT 49
        movq $8f, resume
        USER u_int51               /* allowed by the gate's DPL */
8:      cmpq $0x51, got_vec
        EXPECT 50
        cmpq $KSTACK - 40, int50_rsp
        EXPECT 51
        movq $8f, resume
        USER u_out_allowed
8:      cmpq $1, got_vec
        EXPECT 52
        /* UMIP, SMEP, SMAP */
        mov %cr4, %rax
        bts $11, %rax
        mov %rax, %cr4
        USER_FAULTS 53, 13, 0, u_sgdt
        andl $~4, 0x102000         /* the kernel's own pages are not the user's any more */
        andl $~4, 0x102008
        mov %cr4, %rax
        bts $20, %rax
        bts $21, %rax
        mov %rax, %cr4
        movq $32f, resume
        mov $PAGE_SEL, %ebx
        jmp *%rbx
32:     cmpq $0x11, got_err
        EXPECT 57
        cmpq $PAGE_SEL, got_rip
        EXPECT 57
        FAULTS 54, 14, 1, mov PAGE_SEL, %al
        FAULTS 55, 14, 3, mov %al, PAGE_SEL
        stac
        mov PAGE_SEL, %al
        clac
        FAULTS 56, 14, 1, mov PAGE_SEL, %al
        EXIT 0

        /* ---- handlers ---- */
        .balign 16
stubs:  .set v, 0
        .rept 32
        .balign 16
        .if v == 8 || (v >= 10 && v <= 14) || v == 17
        nop
        .else
        push $0
        .endif
        push $v
        jmp common
        .set v, v + 1
        .endr
        /* Stack: vector, error, RIP, CS, RFLAGS, RSP, SS. Goes on at `resume`, in ring 0. */
common: pop got_vec
        pop got_err
        pop got_rip
        pop got_cs
        pop got_flags
        pop got_rsp
        pop got_ss
        mov $KSTACK, %rsp
        jmp *resume
int50:
int52:  mov %rsp, int50_rsp
        mov (%rsp), %rax
        mov %rax, got_rip
        iretq
int51:  mov %rsp, int50_rsp
        push $0
        push $0x51
        jmp common

set_gate: /* EDI vector, EAX target, ECX type << 8 | IST */
        mov %edi, %edx
        shl $4, %edx
        add $IDT, %edx
        mov %ax, (%rdx)
        movw $SEL_CODE64, 2(%rdx)
        mov %cl, 4(%rdx)
        mov %ch, 5(%rdx)
        shr $16, %eax
        mov %ax, 6(%rdx)
        movq $0, 8(%rdx)
        ret

enter_user:
        push $SEL_UDATA + 3
        push $USTACK
        push $2
        push $SEL_UCODE64 + 3
        push user_rip
        iretq
u_cli:  cli
u_hlt:  hlt
u_cr:   mov %cr0, %rax
u_int50: int $0x50
u_super: mov PAGE_SUPER, %al
u_none: movb $1, PAGE_NONE
u_ud:   ud2
u_out_denied: out %al, $0x81
u_msr:  rdmsr
u_int51: int $0x51
u_sgdt: sgdt scratch
u_out_allowed: out %al, $0x80
        int1
        GDT
        .set SEL_ABSENT, SEL_TSS
idtr:   .word 0x53 * 16 - 1
        .quad IDT
        .balign 8
got_vec: .quad 0
got_err: .quad 0
got_rip: .quad 0
got_cs: .quad 0
got_flags: .quad 0
got_rsp: .quad 0
got_ss: .quad 0
want:   .quad 0
want_rip: .quad 0
resume: .quad 0
user_rip: .quad 0
int50_rsp: .quad 0
scratch: .fill 16
        .balign 16
tss:    .fill 102
        .word tss_map - tss
tss_map: .fill 16
        .byte 0xfe                 /* port 0x80 allowed, 0x81.. not */
        .byte 0xff
tss_end: .byte 0xff
