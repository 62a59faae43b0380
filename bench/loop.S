/* A Multiboot 1 kernel that writes '<', runs 400 million integer instructions, writes '>' and halts. */
    .section .text
    .globl _start
    .align 4
header:
    .long 0x1badb002, 0, -0x1badb002
_start:
    mov $0x100800, %esp
    mov $0x3f8, %dx
    mov $'<', %al
    out %al, %dx
    xor %eax, %eax
    xor %ebx, %ebx
    mov $1, %esi
    mov $50000000, %ecx
1:  add %esi, %eax
    xor %eax, %ebx
    shl $1, %esi
    adc $3, %esi
    mov %ebx, -64(%esp)
    add -64(%esp), %eax
    dec %ecx
    jnz 1b
    mov $0x3f8, %dx
    mov $'>', %al
    out %al, %dx
1:  hlt
    jmp 1b
