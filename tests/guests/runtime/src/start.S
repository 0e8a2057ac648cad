// Entry of a bare-metal guest: arm64 Image header, identity map, stacks. The vectors are the guest's own.
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
    bl      guest_main
3:  wfi
    b       3b

// Where the second vCPU begins.
.global second_start
second_start:
    msr     daifset, #0xf
    mov     x19, x0                 // CPU_ON's context
    adrp    x0, first_level
    add     x0, x0, :lo12:first_level
    bl      translate
    adrp    x1, second_stack_top
    add     x1, x1, :lo12:second_stack_top
    mov     sp, x1
    mov     x29, xzr
    mov     x0, x19
    bl      guest_second
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
