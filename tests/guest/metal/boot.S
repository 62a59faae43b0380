/* Real mode, protected mode, long mode; a line printed by string output in each. */
#include "metal.inc"
        .code16
        .globl _start
_start: mov $0x7000, %sp
        mov $msg16, %si
        cld
1:      lodsb
        test %al, %al
        jz 2f
        outb %al, $0xe9
        jmp 1b
2:      TO_PROTECTED
        mov $0x7000, %esp
        mov $msg32, %esi
        mov $msg32_end - msg32, %ecx
        mov $0xe9, %dx
        rep outsb
        MAKE_TABLES
        TO_LONG
        mov $0x7000, %rsp
        lea msg64(%rip), %rsi
        call print
        EXIT 0
print:  lodsb
        test %al, %al
        jz 1f
        outb %al, $0xe9
        jmp print
1:      ret
msg16:  .asciz "real\n"
msg32:  .ascii "protected\n"
msg32_end:
msg64:  .asciz "long\n"
        GDT
