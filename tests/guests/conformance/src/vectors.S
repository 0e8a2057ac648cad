// Exception vectors: every exception ends what `enter` began, whatever the registers and the stack pointer have become.

.section .text.enter, "ax"
// enter(registers: *const [u64; 32], pc, pstate): goes there with X0 to X30 and SP_EL0 as given; returns at the next exception.
.global enter
enter:
    adrp    x3, frame
    add     x3, x3, :lo12:frame
    stp     x19, x20, [x3, #128]
    stp     x21, x22, [x3, #144]
    stp     x23, x24, [x3, #160]
    stp     x25, x26, [x3, #176]
    stp     x27, x28, [x3, #192]
    stp     x29, x30, [x3, #208]
    mov     x4, sp
    str     x4, [x3, #224]
    mov     x4, #1
    str     x4, [x3, #72]
    msr     elr_el1, x1
    msr     spsr_el1, x2
    ldr     x4, [x0, #248]
    msr     sp_el0, x4
    ldp     x2, x3, [x0, #16]
    ldp     x4, x5, [x0, #32]
    ldp     x6, x7, [x0, #48]
    ldp     x8, x9, [x0, #64]
    ldp     x10, x11, [x0, #80]
    ldp     x12, x13, [x0, #96]
    ldp     x14, x15, [x0, #112]
    ldp     x16, x17, [x0, #128]
    ldp     x18, x19, [x0, #144]
    ldp     x20, x21, [x0, #160]
    ldp     x22, x23, [x0, #176]
    ldp     x24, x25, [x0, #192]
    ldp     x26, x27, [x0, #208]
    ldp     x28, x29, [x0, #224]
    ldr     x30, [x0, #240]
    ldp     x0, x1, [x0]
    eret

recover:
    msr     tpidrro_el0, x1
    adrp    x1, frame
    add     x1, x1, :lo12:frame
    str     x0, [x1, #64]           // which vector
    ldr     x0, [x1, #72]
    cbz     x0, lost
    str     xzr, [x1, #72]
    stp     x2, x3, [x1, #16]
    mrs     x0, tpidr_el1
    mrs     x2, tpidrro_el0
    stp     x0, x2, [x1]
    mrs     x0, esr_el1
    mrs     x2, elr_el1
    stp     x0, x2, [x1, #32]
    mrs     x0, spsr_el1
    mrs     x2, far_el1
    stp     x0, x2, [x1, #48]
    ldp     x19, x20, [x1, #128]
    ldp     x21, x22, [x1, #144]
    ldp     x23, x24, [x1, #160]
    ldp     x25, x26, [x1, #176]
    ldp     x27, x28, [x1, #192]
    ldp     x29, x30, [x1, #208]
    ldr     x2, [x1, #224]
    mov     sp, x2
    ret

lost:
    adrp    x3, _stack_top
    add     x3, x3, :lo12:_stack_top
    mov     sp, x3
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    bl      guest_lost
1:  wfi
    b       1b

.section .bss.frame, "aw", @nobits
.balign 16
.global frame
frame:
    .zero   256

.section .vectors, "ax"
.balign 0x800
vectors:
.set kind, 0
.rept 16
    .balign 0x80
    msr     tpidr_el1, x0
    mov     x0, #kind
    b       recover
    .set kind, kind + 1
.endr
