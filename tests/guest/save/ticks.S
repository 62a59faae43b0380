/*
 * A Multiboot kernel that counts twice and shows it: the PIT's interrupts (8259) as letters, the local APIC timer's as digits. The
 * letters' count lives in XMM0, the digits' in memory. Between interrupts it sleeps.
 */
        .set MB_FLAGS, 0x10003
        .set APIC, 0xfee00000

        .code32
        .globl _start
_start: jmp start
        .balign 4
header: .long 0x1badb002, MB_FLAGS, -(0x1badb002 + MB_FLAGS)
        .long header, _start, 0, bss_end, start

        .macro gate vector, handler
        mov $\handler, %eax
        mov %ax, idt + \vector * 8
        mov %cs, idt + \vector * 8 + 2
        movw $0x8e00, idt + \vector * 8 + 4
        shr $16, %eax
        mov %ax, idt + \vector * 8 + 6
        .endm
        .macro outb port, value
        mov $\port, %dx
        mov $\value, %al
        out %al, %dx
        .endm

start:  mov $stack_top, %esp
        mov %cr4, %eax
        or $0x200, %eax /* OSFXSR */
        mov %eax, %cr4
        xorps %xmm0, %xmm0
        gate 0x20, tick
        gate 0x30, timer
        lidt idtr
        outb 0x20, 0x11         /* 8259: vectors from 20h, line 0 open */
        outb 0x21, 0x20
        outb 0x21, 4
        outb 0x21, 1
        outb 0x21, 0xfe
        outb 0x43, 0x34         /* PIT channel 0, mode 2, 200 Hz */
        outb 0x40, 5966 & 255
        outb 0x40, 5966 >> 8
        movl $0x1ff, APIC + 0xf0        /* on; timer by 16, periodic, vector 30h */
        movl $3, APIC + 0x3e0
        movl $0x20030, APIC + 0x320
        movl $312500, APIC + 0x380      /* 5 ms at 1 GHz / 16 */
1:      sti
        hlt
        jmp 1b

tick:   pusha
        movl $1, one
        movups one, %xmm1
        paddd %xmm1, %xmm0
        movups %xmm0, count
        mov count, %eax
        xor %edx, %edx
        mov $26, %ecx
        div %ecx
        lea 'a'(%edx), %eax
        mov $0x3f8, %dx
        out %al, %dx
        mov $0x20, %al
        out %al, $0x20
        popa
        iret

timer:  pusha
        incl timers
        mov timers, %eax
        xor %edx, %edx
        mov $10, %ecx
        div %ecx
        lea '0'(%edx), %eax
        mov $0x3f8, %dx
        out %al, %dx
        movl $0, APIC + 0xb0
        popa
        iret

        .balign 16
one:    .fill 4, 4, 0
count:  .fill 4, 4, 0
timers: .long 0
idtr:   .word 0x31 * 8 - 1
        .long idt
        .balign 16
idt:    .fill 0x31 * 8, 1, 0
        .set bss_end, idt + 0x31 * 8 + 4096
        .set stack_top, bss_end
