# A boot sector: prints lines on COM1; shows what INT 15h says of memory; powers off by ACPI's port.
    .code16
    .globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    mov $hello, %si
    call print
    # INT 15h E820: count entries until EBX is 0 again
    xor %ebx, %ebx
    xor %bp, %bp
1:  mov $0xe820, %eax
    mov $0x534d4150, %edx
    mov $20, %ecx
    mov $0x8000, %di
    int $0x15
    jc 2f
    inc %bp
    test %ebx, %ebx
    jnz 1b
2:  mov $none, %si
    cmp $4, %bp
    jb 3f
    mov $map, %si
3:  call print
    mov $0x604, %dx
    mov $0x3400, %ax
    out %ax, %dx
4:  hlt
    jmp 4b

print:
    lodsb
    test %al, %al
    jz 5f
    mov $0x3f8, %dx
    out %al, %dx
    jmp print
5:  ret

hello: .asciz "boot sector: hello\r\n"
map:   .asciz "boot sector: a memory map\r\n"
none:  .asciz "boot sector: no memory map\r\n"
    .org 510
    .word 0xaa55
