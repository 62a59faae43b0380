/*
 * A Multiboot kernel to be debugged: 64-bit, its code at -2 GiB + 1 MiB, an endless loop that calls `work` until `stop`
 * is set; then it powers off. The second vCPU counts in real mode. gdb.py knows the addresses.
 */
        .set PM1_CNT, 0x604
        .set S5_SLEEP, 5 << 10 | 1 << 13
        .set MB_FLAGS, 0x10003
        .set TABLES, 0x110000
        .set TRAMPOLINE, 0x8000

        .code32
        .globl _start
_start: jmp start
        .balign 4
header: .long 0x1badb002, MB_FLAGS, -(0x1badb002 + MB_FLAGS)
        .long header, _start, 0, TABLES, start

start:  mov $ap, %esi
        mov $TRAMPOLINE, %edi
        mov $ap_end - ap, %ecx
        rep movsb
        movl $0x1ff, 0xfee000f0 /* the APIC is on */
        movl $0xc4500, 0xfee00300 /* INIT to all others, SIPI */
        mov $100000, %ecx
1:      pause
        loop 1b
        movl $0xc4600 | TRAMPOLINE >> 12, 0xfee00300

        /* The first 8 MiB at 0 and at -2 GiB. */
        mov $TABLES, %edi
        xor %eax, %eax
        mov $3 * 1024, %ecx
        rep stosl
        movl $TABLES + 0x1003, TABLES
        movl $TABLES + 0x1003, TABLES + 511 * 8
        movl $TABLES + 0x2003, TABLES + 0x1000
        movl $TABLES + 0x2003, TABLES + 0x1000 + 510 * 8
        movl $0x000083, TABLES + 0x2000
        movl $0x200083, TABLES + 0x2008
        movl $0x400083, TABLES + 0x2010
        movl $0x600083, TABLES + 0x2018
        mov $TABLES, %eax
        mov %eax, %cr3
        mov $0x620, %eax /* PAE, OSFXSR, OSXMMEXCPT */
        mov %eax, %cr4
        mov $0xc0000080, %ecx
        rdmsr
        or $0x100, %eax
        wrmsr
        mov $0x80000033, %eax
        mov %eax, %cr0
        lgdt gdtr
        ljmp $8, $long

        .code64
long:   mov $16, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $0xffffffff80000000, %rax
        lea 0x100000(%rax), %rsp
        add $main, %rax
        jmp *%rax

        .code16
ap:     xor %ax, %ax
        mov %ax, %ds
1:      incw 0x9000
        pause
        jmp 1b
ap_end:

        .balign 8
gdt:    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdtr:   .word 23
        .long gdt

        .code64
        .org 0x600
main:   call work
        cmpb $0, stop(%rip)
        je main
        mov $PM1_CNT, %dx
        mov $S5_SLEEP, %ax
        out %ax, %dx
1:      hlt
        jmp 1b

        .org 0x700
work:   mov count(%rip), %rax /* 7 bytes */
        add $1, %rax          /* 4 bytes */
        movq %rax, %xmm1      /* 5 bytes */
        mov %rax, count(%rip) /* 7 bytes */
        ret

        .org 0x800
count:  .quad 0
stop:   .quad 0
