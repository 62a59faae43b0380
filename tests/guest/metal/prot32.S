/*
 * Real mode interrupts, 32-bit protected mode without and with paging: gates of 16 and 32 bits, call gates with parameters, outer
 * returns, expand-down segments, LDT, v8086 mode, hardware task switches. A failing check ends the guest with its number.
 */
#include "metal.inc"
        .set IDT, 0x60000
        .set KSTACK, 0x70000
        .set USTACK, 0x78000
        .set GDT2, 0x61000
        .set TSS_A, 0x62000
        .set TSS_B, 0x62100
        .set LDT, 0x62200
        .set PD, 0x64000
        .set PT, 0x65000
        .set V86_CODE, 0x20000

        .set S_CODE, 0x08
        .set S_DATA, 0x10
        .set S_UCODE, 0x18
        .set S_UDATA, 0x20
        .set S_TSS_A, 0x28
        .set S_TSS_B, 0x30
        .set S_LDT, 0x38
        .set S_CALL, 0x40
        .set S_DOWN, 0x48
        .set S_TASK, 0x50
        .set S_SMALL, 0x58
        .set S_CONF, 0x60

        .macro FAULTS n, vec, err, insn:vararg
        movl $8f, resume
        movl $-1, got_vec
18:     \insn
        EXIT \n
8:      cmpl $\vec, got_vec
        EXPECT \n
        cmpl $\err, got_err
        EXPECT \n
        cmpl $18b, got_eip
        EXPECT \n
        .endm

        .code16
        .globl _start
_start: xor %ax, %ax
        mov %ax, %ds
        mov %ax, %ss
        mov $0x7000, %sp
        /* ---- real mode ---- */
        movw $rm_int, 0x80 * 4
        movw %cs, 0x80 * 4 + 2
        movw $rm_div, 0
        movw %cs, 2
        sti
        xor %bx, %bx
        int $0x80
        cmp $0x1234, %bx
        EXPECT 2
        pushf
        pop %ax
        test $0x200, %ax           /* IRET gave IF back */
        jnz 30f
        EXIT 3
30:     cli
        xor %cx, %cx
        div %cx                    /* a fault: IP of the instruction */
31:     cmp $0x5678, %bx
        EXPECT 4
        cmp $0x7000, %sp
        EXPECT 5
        jmp prot
rm_int: mov $0x1234, %bx
        pushf
        pop %ax
        test $0x200, %ax
        jz 30f
        EXIT 6
30:     iret
rm_div: mov $0x5678, %bx
        pop %ax
        add $2, %ax
        push %ax
        iret

prot:   TO_PROTECTED
        mov $KSTACK, %esp
        /* our own GDT */
        mov $gdt2_image, %esi
        mov $GDT2, %edi
        mov $(gdt2_end - gdt2_image), %ecx
        rep movsb
        lgdt gdtr2
        ljmp $S_CODE, $32f
32:     mov $S_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov %eax, %fs
        mov %eax, %gs
        mov $TSS_A, %edi
        xor %eax, %eax
        mov $0x300, %ecx
        rep stosb
        movl $KSTACK, TSS_A + 4
        movl $S_DATA, TSS_A + 8
        movw $104, TSS_A + 102
        movw $104, TSS_B + 102
        mov $S_TSS_A, %eax
        ltr %ax
        mov $IDT, %edi
        mov $34, %ecx
        xor %edx, %edx
33:     mov %edx, %eax
        shl $4, %eax
        add $stubs, %eax
        mov %ax, (%edi)
        movw $S_CODE, 2(%edi)
        mov $0x8e00, %ax
        mov %eax, 4(%edi)
        add $8, %edi
        inc %edx
        loop 33b
        movw $0xee00, IDT + 0x21 * 8 + 4 /* 0x21: for everybody */
        lidt idtr2

        /* ---- segments ---- */
        FAULTS 10, 6, 0, ud2
        mov $S_SMALL, %eax         /* limit 0xfff */
        mov %eax, %fs
        movb %fs:0xfff, %al
        FAULTS 11, 13, 0, movb %fs:0x1000, %al
        FAULTS 12, 13, 0, movl %fs:0xffd, %eax
        mov $S_DOWN, %eax          /* valid from 0x1000 up */
        mov %eax, %gs
        movb %gs:0x1000, %al
        FAULTS 13, 13, 0, movb %gs:0xfff, %al
        FAULTS 14, 13, 0, movb %al, %cs:0x500
        xor %eax, %eax
        mov %eax, %gs
        FAULTS 15, 13, 0, movb %gs:0x500, %al
        mov $S_CODE, %eax
        mov %eax, %gs              /* readable code is data, too */
        movb %gs:0x500, %al
        FAULTS 16, 13, 0, movb %al, %gs:0x500
        movl $0x0500ffff, LDT
        movl $0x00009200, LDT + 4
        mov $S_LDT, %eax
        lldt %ax
        mov $4, %eax
        mov %eax, %gs              /* LDT entry 0: base 0x500 */
        movl $0x11223344, 0x510
        cmpl $0x11223344, %gs:0x10
        EXPECT 17
        mov $0x0c, %eax
        FAULTS 18, 13, 0x0c, mov %eax, %gs
        lar %eax, %ebx
        jnz 30f
        EXIT 19
30:     mov $S_UDATA, %eax
        lar %eax, %ebx
        EXPECT 19
        and $0xf0ff00, %ebx        /* the limit bits are undefined */
        cmp $0xc0f200, %ebx
        EXPECT 20
        lsl %eax, %ebx
        cmp $-1, %ebx
        EXPECT 21
        verw %ax
        EXPECT 22
        mov $S_CODE, %eax
        verw %ax
        jnz 30f
        EXIT 22
30:     mov $3, %ebx
        mov $S_UDATA, %eax
        arpl %bx, %ax
        EXPECT 23
        cmp $(S_UDATA + 3), %eax
        EXPECT 23

        /* ---- ring 3 and back through a call gate with two parameters ---- */
        mov $S_UDATA + 3, %eax
        mov %eax, %ds
        mov %eax, %es
        push $S_UDATA + 3
        push $USTACK
        push $0x3202               /* IOPL 3 */
        push $S_UCODE + 3
        push $user
        iretl
user:   mov %cs, %eax
        cmp $(S_UCODE + 3), %eax
        EXPECT 30
        cli                        /* IOPL 3 allows */
        sti
        in $0x80, %al
        push $0x1111
        push $0x2222
        lcall $S_CALL, $0
34:     cmp $(USTACK - 8 + 8), %esp
        EXPECT 31
        cmp $0x3333, %eax
        EXPECT 32
        mov %ss, %eax
        cmp $(S_UDATA + 3), %eax
        EXPECT 33
        int $0x21                  /* same stack switch by a gate */
        jmp after_user
gate_entry:
        cmp $(KSTACK - 24), %esp
        EXPECT 34
        cmpl $34b, (%esp)
        EXPECT 35
        cmpl $0x2222, 8(%esp)
        EXPECT 36
        cmpl $0x1111, 12(%esp)
        EXPECT 37
        cmpl $USTACK - 8, 16(%esp)
        EXPECT 38
        mov %cs, %eax
        cmp $S_CODE, %eax
        EXPECT 39
        mov $0x3333, %eax
        lret $8
after_user:
        movl $36f, resume
        hlt                        /* #GP(0) at ring 3 */
36:     cmpl $13, got_vec
        EXPECT 40
        mov $S_DATA, %eax
        mov %eax, %ds
        mov %eax, %es

        /* ---- v8086 ---- */
        mov $v86_image, %esi
        mov $V86_CODE, %edi
        mov $(v86_end - v86_image), %ecx
        rep movsb
        push $0                    /* GS FS DS ES */
        push $0
        push $0x2000
        push $0
        push $0                    /* SS */
        push $0x6000
        push $0x23202              /* VM, IOPL 3 */
        push $0x2000
        push $0
        movl $0, 0x20040
        movl $37f, resume
        iretl
37:     mov %ds, %ebx              /* null now */
        mov $S_DATA, %eax
        mov %eax, %ds
        mov %eax, %es
        cmpl $6, got_vec           /* it ended by UD2 */
        EXPECT 50
        cmpl $0x2000, got_cs
        EXPECT 51
        testl $0x20000, got_flags
        jnz 30f
        EXIT 52
30:     cmpl $0xabcd, 0x20040
        EXPECT 53
        test %ebx, %ebx
        EXPECT 54
        cmpl $0x2000, v86_ds       /* and pushed before */
        EXPECT 55

        /* ---- tasks ---- */
        movl $task_b, TSS_B + 32
        movl $2, TSS_B + 36
        movl $0x6f000, TSS_B + 56
        movl $S_DATA, TSS_B + 72
        movl $S_CODE, TSS_B + 76
        movl $S_DATA, TSS_B + 80
        movl $S_DATA, TSS_B + 84
        mov $0x77, %ebx
        lcall $S_TASK, $0          /* by a task gate */
        cmp $0x77, %ebx
        EXPECT 60
        cmpl $1, task_runs
        EXPECT 61
        str %eax
        cmp $S_TSS_A, %eax
        EXPECT 62
        pushfl
        pop %eax
        test $0x4000, %eax
        EXPECT 63
        ljmp $S_TSS_B, $0          /* goes on after its IRET; it comes back by a jump */
        cmpl $2, task_runs
        EXPECT 64
        mov %cr0, %eax
        test $8, %eax              /* TS */
        jnz 30f
        EXIT 65
30:     FAULTS 66, 13, S_TSS_A, ljmp $S_TSS_A, $0 /* busy */

        /* ---- 32-bit paging with a 4 MiB page, and PAE ---- */
        mov $PD, %edi
        xor %eax, %eax
        mov $0x2000, %ecx
        rep stosb
        movl $0x83, PD             /* 4 MiB, identity */
        movl $(PT | 3), PD + 4
        movl $0x66003, PT
        movl $0x5a5a5a5a, 0x66010
        mov %cr4, %eax
        or $0x10, %eax             /* PSE */
        mov %eax, %cr4
        mov $PD, %eax
        mov %eax, %cr3
        mov %cr0, %eax
        or $0x80000000, %eax
        mov %eax, %cr0
        jmp 30f
30:     cmpl $0x5a5a5a5a, 0x400010
        EXPECT 70
        testb $0x20, PT
        jnz 30f
        EXIT 71
30:     FAULTS 72, 14, 2, movl $1, 0x401000
        mov %cr2, %eax
        cmp $0x401000, %eax
        EXPECT 73
        mov %cr0, %eax
        and $0x7fffffff, %eax
        mov %eax, %cr0
        mov $PD, %edi
        xor %eax, %eax
        mov $0x2000, %ecx
        rep stosb
        movl $(PT | 1), PD         /* PDPT */
        movl $0x83, PT             /* 2 MiB, identity */
        movl $0x83, PT + 8         /* an alias */
        mov %cr4, %eax
        or $0x20, %eax             /* PAE */
        mov %eax, %cr4
        mov $PD, %eax
        mov %eax, %cr3
        mov %cr0, %eax
        or $0x80000000, %eax
        mov %eax, %cr0
        cmpl $0x5a5a5a5a, 0x266010
        EXPECT 74
        movl $0, PT + 8
        invlpg 0x266010
        FAULTS 75, 14, 0, movl 0x266010, %eax
        movl $(PT | 3), PD         /* bit 1 of a PDPTE is reserved */
        mov %cr3, %eax
        FAULTS 76, 13, 0, mov %eax, %cr3
        EXIT 0

task_b: incl task_runs
        mov $0x99, %ebx
        pushfl
        pop %eax
        test $0x4000, %eax         /* NT: nested */
        jnz 30f
        EXIT 67
30:     iretl
        incl task_runs
        ljmp $S_TSS_A, $0

        .balign 16
stubs:  .set v, 0
        .rept 34
        .balign 16
        .if v == 8 || (v >= 10 && v <= 14) || v == 17
        .else
        push $0
        .endif
        push $v
        jmp common
        .set v, v + 1
        .endr
common: cmpl $0x21, (%esp)
        jne 30f
        add $8, %esp
        iretl
30:     pop %ss:got_vec
        pop %ss:got_err
        pop %ss:got_eip
        pop %ss:got_cs
        pop %ss:got_flags
        mov 12(%esp), %eax         /* of v8086: ESP SS ES DS */
        mov %eax, %ss:v86_ds
        mov $KSTACK, %esp
        jmp *%ss:resume

        .code16
v86_image:
        mov %ds, %ax
        cmp $0x2000, %ax
        jne 30f
        movw $0xabcd, 0x40
        push %ax
        pop %bx
        cmp $0x5ffe + 2, %sp
        jne 30f
        cli
        sti
30:     ud2
v86_end:
        .code32
        GDT
        .balign 8
gdt2_image:
        .quad 0
        .quad 0x00cf9a000000ffff
        .quad 0x00cf92000000ffff
        .quad 0x00cffa000000ffff
        .quad 0x00cff2000000ffff
        .quad 0x0000890620000067
        .quad 0x0000890621000067
        .quad 0x0000820622000007
        .word gate_entry, S_CODE
        .word 0xec02, 0
        .quad 0x0040960000000fff
        .quad 0x0000e50000300000
        .quad 0x0040920000000fff
        .quad 0x00cf9e000000ffff
gdt2_end:
gdtr2:  .word gdt2_end - gdt2_image - 1
        .long GDT2
idtr2:  .word 34 * 8 - 1
        .long IDT
        .balign 4
got_vec: .long 0
got_err: .long 0
got_eip: .long 0
got_cs: .long 0
got_flags: .long 0
v86_ds: .long 0
resume: .long 0
task_runs: .long 0
