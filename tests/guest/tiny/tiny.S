/*
 * A Multiboot kernel of a few hundred bytes that uses what a PC has: the serial port, the 8259 and the PIT (three interrupts while it sleeps in
 * HLT), its command line, and ACPI power-off.
 */
        .set PM1_CNT, 0x604
        .set S5_SLEEP, 5 << 10 | 1 << 13
        .set MB_FLAGS, 0x10003

        .code32
        .globl _start
_start: jmp start
        .balign 4
header: .long 0x1badb002, MB_FLAGS, -(0x1badb002 + MB_FLAGS)
        .long header, _start, 0, bss_end, start

start:  mov $stack_top, %esp
        push 16(%ebx) /* command line */
        mov $hello, %esi
        call puts
        pop %esi
        call puts

        /* IDT: vector 20h is the timer. */
        mov $tick, %eax
        mov %ax, idt + 0x20 * 8
        mov %cs, idt + 0x20 * 8 + 2
        movw $0x8e00, idt + 0x20 * 8 + 4
        shr $16, %eax
        mov %ax, idt + 0x20 * 8 + 6
        lidt idtr
        /* 8259: vectors from 20h, only line 0 open. */
        mov $0x11, %al
        out %al, $0x20
        mov $0x20, %al
        out %al, $0x21
        mov $4, %al
        out %al, $0x21
        mov $1, %al
        out %al, $0x21
        mov $0xfe, %al
        out %al, $0x21
        /* PIT channel 0, mode 2, 100 Hz. */
        mov $0x34, %al
        out %al, $0x43
        mov $11932 & 255, %al
        out %al, $0x40
        mov $11932 >> 8, %al
        out %al, $0x40
1:      sti
        hlt
        cli
        cmpl $3, ticks
        jb 1b
        mov $ticked, %esi
        call puts
        mov $PM1_CNT, %dx
        mov $S5_SLEEP, %ax
        out %ax, %dx
2:      hlt
        jmp 2b

tick:   push %eax
        incl ticks
        mov $0x20, %al
        out %al, $0x20
        pop %eax
        iret

puts:   lodsb
        test %al, %al
        jz 2f
        mov %al, %ah
        mov $0x3fd, %dx
1:      in %dx, %al
        test $0x20, %al
        jz 1b
        mov $0x3f8, %dx
        mov %ah, %al
        out %al, %dx
        jmp puts
2:      ret

hello:  .asciz "tiny guest: "
ticked: .asciz "\nthree ticks\n"
        .balign 4
idtr:   .word 0x21 * 8 - 1
        .long idt
ticks:  .long 0
        .balign 16
idt:    .fill 0x21 * 8, 1, 0
        .set bss_end, idt + 0x21 * 8 + 4096
        .set stack_top, bss_end
