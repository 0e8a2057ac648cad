// Entry from the boot loader and from PSCI, up to the first Rust code.
//
// The image may lie at any 2 MiB boundary, the MMU is off, caches hold anything. This code is position independent: it
// makes just enough translation tables to run the program at its linked address, and stays mapped at its physical
// address (one page, `.head`) because the MMU can only be switched on, or its tables changed, from there.

.equ SCTLR_EL2_BOOT, 0x30C5183D    // RES1, M, C, SA, I; the boot tables are writable and executable
.equ SCTLR_EL2_ON,   0x30CD183D    // the same and WXN: nothing writable is executable
.equ SCTLR_EL2_OFF,  0x30C50830    // RES1 only
.equ BLOCK_RWX,      0x741         // valid block, attribute 0 (normal), inner shareable, accessed
.equ TABLE,          0x3
.equ MAX_CPUS,       8              // arch/cpu.rs

.section .head, "ax"
.global _head
_head:
    b       primary_entry           // Documentation/arch/arm64/booting.rst: code0, code1
    .long   0
    .quad   0                       // text_offset: at the 2 MiB boundary itself
    .quad   _image_size
    .quad   0xa                     // little endian, 4 KiB pages, anywhere in memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

primary_entry:
    mov     x19, x0                 // device tree, physical
    mov     x28, #0                 // this is the boot CPU
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    not_el2
    msr     daifset, #0xf
    ldr     x1, =SCTLR_EL2_OFF
    msr     sctlr_el2, x1
    isb                             // the MMU is off before memory is treated as uncached

    adrp    x20, _head              // physical base of the image
    ldr     x21, =_image_start      // its linked address
    ldr     x1, =_bss_start
    ldr     x2, =_stacks_end
    sub     x1, x1, x21
    sub     x2, x2, x21
    add     x1, x1, x20
    add     x2, x2, x20
    // What the loader's caches still hold of this memory must not overwrite what is written now, uncached.
1:  cmp     x1, x2
    b.hs    2f
    dc      ivac, x1
    stp     xzr, xzr, [x1]
    stp     xzr, xzr, [x1, #16]
    stp     xzr, xzr, [x1, #32]
    stp     xzr, xzr, [x1, #48]
    add     x1, x1, #64
    b       1b
2:  dsb     sy                      // zeroes are in memory before the table walker looks there

    // Level 0: [identity index] -> level 1 -> level 2 with the one block that holds this code;
    //          [linked index]   -> level 1 -> level 2 with all blocks of the image.
    adrp    x1, boot_l0
    add     x1, x1, :lo12:boot_l0
    adrp    x2, boot_identity_l1
    add     x2, x2, :lo12:boot_identity_l1
    adrp    x3, boot_identity_l2
    add     x3, x3, :lo12:boot_identity_l2
    ubfx    x4, x20, #39, #9
    orr     x5, x2, #TABLE
    str     x5, [x1, x4, lsl #3]
    ubfx    x4, x20, #30, #9
    orr     x5, x3, #TABLE
    str     x5, [x2, x4, lsl #3]
    ubfx    x4, x20, #21, #9
    ldr     x6, =BLOCK_RWX
    orr     x5, x20, x6
    str     x5, [x3, x4, lsl #3]

    adrp    x2, boot_image_l1
    add     x2, x2, :lo12:boot_image_l1
    adrp    x3, boot_image_l2
    add     x3, x3, :lo12:boot_image_l2
    ubfx    x4, x21, #39, #9
    orr     x5, x2, #TABLE
    str     x5, [x1, x4, lsl #3]
    ubfx    x4, x21, #30, #9
    orr     x5, x3, #TABLE
    str     x5, [x2, x4, lsl #3]
    ldr     x7, =_image_size
    mov     x8, x20
    orr     x5, x20, x6
3:  str     x5, [x3], #8
    add     x5, x5, #0x200000
    subs    x7, x7, #0x200000
    b.hi    3b
    dsb     sy                      // tables are in memory before the walker is switched on

    mov     x22, x1                 // TTBR0
    ldr     x2, =_stacks_start
    ldr     x3, =(0x1000 + 0x8000)
    add     x23, x2, x3             // top of the first stack
    ldr     x24, =baton_start
    ldr     x25, =SCTLR_EL2_BOOT
    b       enable_mmu

not_el2:
    wfe
    b       not_el2

// PSCI or a spin table start the other CPUs here. A spin table passes no argument, and several CPUs may poll one word of it: so each
// looks for its own SecondaryBoot, by its affinity, until there is one (cleaned to memory, `key` last).
.global secondary_entry
secondary_entry:
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    not_el2
    msr     daifset, #0xf
    ldr     x1, =SCTLR_EL2_OFF
    msr     sctlr_el2, x1
    isb                             // MMU off before the next loads
    mrs     x1, mpidr_el1
    ldr     x2, =0xff00ffffff
    and     x1, x1, x2
    orr     x1, x1, #(1 << 63)      // SecondaryBoot::key
1:  adrp    x2, baton_secondaries
    add     x2, x2, :lo12:baton_secondaries
    mov     x3, #MAX_CPUS
2:  ldr     x4, [x2, #0]            // key
    cmp     x4, x1
    b.eq    3f
    add     x2, x2, #64
    subs    x3, x3, #1
    b.ne    2b
    wfe
    b       1b
3:  dmb     sy                      // the rest is read after the key
    ldp     x22, x23, [x2, #8]      // tables, stack
    ldr     x19, [x2, #24]          // CPU number
    ldr     x24, =baton_start_secondary
    ldr     x25, =SCTLR_EL2_ON

// x22 tables, x23 stack, x24 where to go, x25 SCTLR_EL2, x19 and x20 arguments
enable_mmu:
    ldr     x1, =0x4404ff           // attribute 0 normal write-back, 1 device nGnRE, 2 normal non-cacheable
    msr     mair_el2, x1
    mrs     x2, id_aa64mmfr0_el1
    and     x2, x2, #0xf            // PARange
    cmp     x2, #5
    mov     x3, #5
    csel    x2, x2, x3, ls          // at most 48 bits
    lsl     x2, x2, #16
    ldr     x1, =0x80803510         // RES1, SH0 inner, ORGN0/IRGN0 write-back, T0SZ 16
    orr     x1, x1, x2
    msr     tcr_el2, x1
    msr     ttbr0_el2, x22
    tlbi    alle2
    dsb     nsh                     // old translations are gone before new ones are made
    ic      iallu
    dsb     nsh                     // and so are old instructions
    isb                             // all of the above before the MMU goes on
    msr     sctlr_el2, x25
    isb                             // translation on for the next fetch
    mov     sp, x23
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    mov     x1, x20
    br      x24

// switch_tables(x0 = physical address of the new level 0, x1 = physical address of this page, as identity)
// Changes the boot tables for the final ones. Block sizes differ, so no translation of the old ones may be live when
// the new ones are: the MMU is off in between, which only works from the identity page.
.global switch_tables
switch_tables:
    adr     x2, 1f
    ldr     x3, =_image_start
    sub     x2, x2, x3
    add     x2, x2, x1              // physical address of label 1
    ldr     x5, =SCTLR_EL2_ON
    ldr     x6, =SCTLR_EL2_OFF
    br      x2
1:  msr     sctlr_el2, x6
    isb                             // MMU off before the tables change
    msr     ttbr0_el2, x0
    tlbi    alle2
    dsb     nsh                     // old translations gone
    isb                             // before the MMU goes on again
    msr     sctlr_el2, x5
    isb                             // translation on for the next fetch
    ret
    .ltorg

.section .bss.boot_tables, "aw", @nobits
.balign 4096
.global boot_l0
boot_l0:            .skip 4096
boot_identity_l1:   .skip 4096
boot_identity_l2:   .skip 4096
boot_image_l1:      .skip 4096
boot_image_l2:      .skip 4096
.global boot_tree_l1
boot_tree_l1:       .skip 4096
.global boot_tree_l2
boot_tree_l2:       .skip 4096
