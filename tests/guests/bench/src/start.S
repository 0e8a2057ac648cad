// Entry of the bench guest: arm64 Image header, identity map, stack, exception vectors.
//
// The MMU is switched on because Rust's atomics need Normal memory; instruction counts don't change by it.

.section .head, "ax"
.global _head
_head:
    b       start
    .long   0
    .quad   0                       // text_offset
    .quad   _image_size
    .quad   0xa                     // little-endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

.section .text.start, "ax"
start:
    mrs     x20, cntpct_el0         // how long it took to get here
    msr     daifset, #0xf
    mov     x19, x0                 // device tree
    adr     x1, _head
    ldr     x2, =_head
    cmp     x1, x2
    b.eq    placed
    ldr     x3, =_bss_start         // a hypervisor that loads at the start of RAM: move to where this was linked
1:  ldp     x4, x5, [x1], #16
    stp     x4, x5, [x2], #16
    cmp     x2, x3
    b.lo    1b
    dsb     sy
    ic      iallu
    dsb     sy
    isb
    ldr     x1, =placed
    br      x1
placed:
    adrp    x1, _bss_start
    add     x1, x1, :lo12:_bss_start
    adrp    x2, _bss_end
    add     x2, x2, :lo12:_bss_end
1:  cmp     x1, x2
    b.hs    2f
    stp     xzr, xzr, [x1], #16
    b       1b
2:  adrp    x0, first_level
    add     x0, x0, :lo12:first_level
    ldr     x1, =0x0060000000000401 // 1 GiB at 0, device, never executed
    str     x1, [x0]
    ldr     x1, =0x0000000040000705 // 1 GiB of RAM, write-back, inner shareable
    str     x1, [x0, #8]
    ldr     x1, =0x0060004000000401 // 1 GiB with the PCIe configuration space
    str     x1, [x0, #256 * 8]
    dsb     ish
    bl      translate
    adrp    x1, _stack_top
    add     x1, x1, :lo12:_stack_top
    mov     sp, x1
    mov     x29, xzr
    mov     x0, x19
    mov     x1, x20
    bl      bench_main
3:  wfi
    b       3b

// Where the second vCPU begins.
.global second_start
second_start:
    msr     daifset, #0xf
    adrp    x0, first_level
    add     x0, x0, :lo12:first_level
    bl      translate
    adrp    x1, second_stack_top
    add     x1, x1, :lo12:second_stack_top
    mov     sp, x1
    mov     x29, xzr
    bl      bench_second
4:  wfi
    b       4b

// Switches translation on (x0 = table), and the vectors.
translate:
    msr     ttbr0_el1, x0
    ldr     x1, =0xff00             // attribute 0: Device-nGnRnE, 1: Normal write-back
    msr     mair_el1, x1
    ldr     x1, =0x0000000200803519 // 39-bit addresses, 4 KiB, cached walks, no TTBR1, 40-bit output
    msr     tcr_el1, x1
    isb
    tlbi    vmalle1
    dsb     ish
    isb
    mrs     x1, sctlr_el1
    ldr     x2, =0x1005             // I, C, M
    orr     x1, x1, x2
    msr     sctlr_el1, x1
    isb
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el1, x1
    isb
    ret

.section .bss.second_stack, "aw", @nobits
.balign 16
    .zero   16384
second_stack_top:

.section .bss.first_level, "aw", @nobits
.balign 4096
first_level:
    .zero   4096

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
