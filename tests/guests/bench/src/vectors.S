// Exception vectors of the bench guest: an interrupt notes the counter first; all else is a mistake.

.section .vectors, "ax"
.balign 0x800
vectors:
.rept 4
    .balign 0x80
    b       unexpected
.endr
    .balign 0x80
    b       unexpected              // current EL, SP_ELx: synchronous
    .balign 0x80
    stp     x0, x1, [sp, #-16]!     // IRQ
    mrs     x0, cntvct_el0          // arrival: two instructions after the vector's entry
    b       interrupt
    .balign 0x80
    b       unexpected
    .balign 0x80
    b       unexpected
.rept 8
    .balign 0x80
    b       unexpected
.endr

interrupt:
    stp     x2, x3, [sp, #-16]!
    stp     x4, x5, [sp, #-16]!
    stp     x6, x7, [sp, #-16]!
    stp     x8, x9, [sp, #-16]!
    stp     x10, x11, [sp, #-16]!
    stp     x12, x13, [sp, #-16]!
    stp     x14, x15, [sp, #-16]!
    stp     x16, x17, [sp, #-16]!
    stp     x18, x29, [sp, #-16]!
    mrs     x1, elr_el1
    stp     x30, x1, [sp, #-16]!
    mrs     x1, spsr_el1
    stp     x1, xzr, [sp, #-16]!
    bl      bench_interrupt
    ldp     x1, xzr, [sp], #16
    msr     spsr_el1, x1
    ldp     x30, x1, [sp], #16
    msr     elr_el1, x1
    ldp     x18, x29, [sp], #16
    ldp     x16, x17, [sp], #16
    ldp     x14, x15, [sp], #16
    ldp     x12, x13, [sp], #16
    ldp     x10, x11, [sp], #16
    ldp     x8, x9, [sp], #16
    ldp     x6, x7, [sp], #16
    ldp     x4, x5, [sp], #16
    ldp     x2, x3, [sp], #16
    ldp     x0, x1, [sp], #16
    eret

unexpected:
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    bl      bench_unexpected
1:  wfi
    b       1b
