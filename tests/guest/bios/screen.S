# A boot sector that draws: text, mode 13h, mode 12h by planes, and 800x600 in 256 colours by VESA. A key goes on.
    .code16
    .globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7c00, %sp
    cld
    # text: all characters in rows of 32, in all attributes one after the other, from line 4 on
    mov $0x0003, %ax
    int $0x10
    mov $0xb800, %ax
    mov %ax, %es
    mov $(4 * 160), %di
    xor %bx, %bx
1:  mov %bl, %al
    mov %bl, %ah
    stosw
    inc %bl
    jz 2f
    test $31, %bl
    jnz 1b
    add $(160 - 64), %di
    jmp 1b
2:  call key
    # 320x200 in 256 colours: colour = x xor y
    mov $0x0013, %ax
    int $0x10
    mov $0xa000, %ax
    mov %ax, %es
    xor %di, %di
    xor %dx, %dx
3:  xor %cx, %cx
4:  mov %cl, %al
    xor %dl, %al
    stosb
    inc %cx
    cmp $320, %cx
    jb 4b
    inc %dx
    cmp $200, %dx
    jb 3b
    call key
    # 640x480 in 16 colours: line n has colour n & 15, by set/reset and the bit mask: even pixels only
    mov $0x0012, %ax
    int $0x10
    mov $0x3ce, %dx
    mov $0x0f01, %ax        # enable set/reset of all planes
    out %ax, %dx
    mov $0x5508, %ax        # bit mask
    out %ax, %dx
    xor %di, %di
    xor %bx, %bx
5:  mov %bl, %ah
    and $15, %ah
    xor %al, %al
    out %ax, %dx            # set/reset: the colour
    mov $80, %cx
6:  mov %es:(%di), %al      # fills the latches
    stosb
    loop 6b
    inc %bx
    cmp $480, %bx
    jb 5b
    call key
    # VESA 0x103, the window at 0xa0000: the first 64 KiB
    mov $0x4f02, %ax
    mov $0x0103, %bx
    int $0x10
    cmp $0x004f, %ax
    jne 8f
    mov $0xa000, %ax
    mov %ax, %es
    xor %di, %di
7:  mov %di, %ax
    stosb
    test %di, %di
    jnz 7b
    call key
8:  mov $0x604, %dx
    mov $0x3400, %ax
    out %ax, %dx
9:  hlt
    jmp 9b

# Says on COM1 that a picture is there, and waits for a key.
key:
    mov $0x3f8, %dx
    mov $'.', %al
    out %al, %dx
    xor %ax, %ax
    int $0x16
    ret
    .org 510
    .word 0xaa55
