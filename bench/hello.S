/* The smallest guest: a Multiboot 1 kernel that writes one byte to COM1 and halts. For measuring start-up. */
    .section .text
    .globl _start
    .align 4
header:
    .long 0x1badb002, 0, -0x1badb002
_start:
    mov $0x3f8, %dx
    mov $'!', %al
    out %al, %dx
1:  hlt
    jmp 1b
