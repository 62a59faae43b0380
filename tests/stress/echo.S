/*
 * A Multiboot kernel for sessions on a terminal: sleeps in HLT, is woken by the PIT (1 kHz) and by the serial port's receive
 * interrupt through the 8259, and sends back what it gets. It powers off on Ctrl-D.
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
        gate 0x20, tick
        gate 0x24, serial
        lidt idtr
        outb 0x20, 0x11         /* 8259: vectors from 20h, lines 0 and 4 open */
        outb 0x21, 0x20
        outb 0x21, 4
        outb 0x21, 1
        outb 0x21, 0xee
        outb 0x43, 0x34         /* PIT channel 0, mode 2, 1 kHz */
        outb 0x40, 1193 & 255
        outb 0x40, 1193 >> 8
        outb 0x3fa, 7           /* FIFOs on, OUT2 opens the line, receive interrupts */
        outb 0x3fc, 0x0b
        outb 0x3f9, 1
        mov $ready, %esi
1:      lodsb
        test %al, %al
        jz 2f
        mov $0x3f8, %dx
        out %al, %dx
        jmp 1b
2:      sti
        hlt
        jmp 2b

tick:   push %eax
        incl ticks
        mov $0x20, %al
        out %al, $0x20
        pop %eax
        iret

serial: pusha
1:      mov $0x3fd, %dx
        in %dx, %al
        test $1, %al
        jz 2f
        mov $0x3f8, %dx
        in %dx, %al
        cmp $4, %al
        je off
        out %al, %dx
        jmp 1b
2:      mov $0x3fa, %dx         /* an edge comes only after the line was low: until there is nothing left */
        in %dx, %al
        test $1, %al
        jz 1b
        mov $0x20, %al
        out %al, $0x20
        popa
        iret

off:    mov $PM1_CNT, %dx
        mov $S5_SLEEP, %ax
        out %ax, %dx
1:      hlt
        jmp 1b

ready:  .asciz "ready\r\n"
        .balign 4
idtr:   .word 0x25 * 8 - 1
        .long idt
ticks:  .long 0
        .balign 16
idt:    .fill 0x25 * 8, 1, 0
        .set bss_end, idt + 0x25 * 8 + 4096
        .set stack_top, bss_end
