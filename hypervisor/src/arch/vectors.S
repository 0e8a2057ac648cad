// Exception vectors of EL2.
//
// A guest's exit saves all 31 general registers into the vCPU that TPIDR_EL2's per-CPU block names, and calls
// `baton_exit` with it; what that returns (the same vCPU or another one) is resumed. The stack is empty at every
// guest entry, so an exit finds it at its top.
//
// An exception taken *from* EL2 is a fault of Baton: it's reported from a stack of its own, since the fault may be an
// overflow of the normal one.

.equ CPU_VCPU,      0
.equ CPU_FAULT_SP,  8
.equ CPU_SCRATCH,   16

.macro ventry label
    .balign 0x80
    b       \label
.endm

.section .vectors, "ax"
.balign 0x800
.global baton_vectors
baton_vectors:
    ventry  fault_sync              // current EL with SP_EL0: never used
    ventry  fault_irq
    ventry  fault_irq
    ventry  fault_serror
    ventry  fault_sync              // current EL with SP_ELx
    ventry  fault_irq
    ventry  fault_irq
    ventry  fault_serror
    ventry  exit_sync               // lower EL, AArch64
    ventry  exit_irq
    ventry  exit_irq
    ventry  exit_serror
    ventry  exit_sync               // lower EL, AArch32
    ventry  exit_irq
    ventry  exit_irq
    ventry  exit_serror

.macro exit_with kind
    stp     x0, x1, [sp, #-16]!
    mrs     x0, tpidr_el2
    ldr     x0, [x0, #CPU_VCPU]
    stp     x2, x3, [x0, #16]
    ldp     x2, x3, [sp], #16
    stp     x2, x3, [x0, #0]
    stp     x4, x5, [x0, #32]
    stp     x6, x7, [x0, #48]
    stp     x8, x9, [x0, #64]
    stp     x10, x11, [x0, #80]
    stp     x12, x13, [x0, #96]
    stp     x14, x15, [x0, #112]
    stp     x16, x17, [x0, #128]
    stp     x18, x19, [x0, #144]
    stp     x20, x21, [x0, #160]
    stp     x22, x23, [x0, #176]
    stp     x24, x25, [x0, #192]
    stp     x26, x27, [x0, #208]
    stp     x28, x29, [x0, #224]
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x30, x2, [x0, #240]
    str     x3, [x0, #256]
    mov     x1, #\kind
    mov     x29, xzr
    bl      baton_exit
    b       resume_guest
.endm

exit_sync:   exit_with 0
exit_irq:    exit_with 1
exit_serror: exit_with 2

// resume_guest(x0 = registers of the vCPU to run)
.global resume_guest
resume_guest:
    mrs     x1, tpidr_el2
    str     x0, [x1, #CPU_VCPU]
    ldr     x3, [x0, #256]
    ldp     x30, x2, [x0, #240]
    msr     elr_el2, x2
    msr     spsr_el2, x3
    ldp     x28, x29, [x0, #224]
    ldp     x26, x27, [x0, #208]
    ldp     x24, x25, [x0, #192]
    ldp     x22, x23, [x0, #176]
    ldp     x20, x21, [x0, #160]
    ldp     x18, x19, [x0, #144]
    ldp     x16, x17, [x0, #128]
    ldp     x14, x15, [x0, #112]
    ldp     x12, x13, [x0, #96]
    ldp     x10, x11, [x0, #80]
    ldp     x8, x9, [x0, #64]
    ldp     x6, x7, [x0, #48]
    ldp     x4, x5, [x0, #32]
    ldp     x2, x3, [x0, #16]
    ldp     x0, x1, [x0, #0]
    eret
    dsb     nsh                     // no speculation past the return
    isb                             // (Spectre: straight-line)

// The first guest entry of a CPU: forgets the boot path's stack. x0 = registers, x1 = top of the stack.
.global start_guest
start_guest:
    mov     sp, x1
    b       resume_guest

.macro fault_with kind
    msr     tpidr_el0, x0           // a guest's value, but there will be no guest any more
    mrs     x0, tpidr_el2
    str     x1, [x0, #CPU_SCRATCH]
    mov     x1, sp
    str     x1, [x0, #CPU_SCRATCH + 8]
    ldr     x1, [x0, #CPU_FAULT_SP]
    mov     sp, x1
    ldr     x1, [x0, #CPU_SCRATCH]
    ldr     x0, [x0, #CPU_SCRATCH + 8]
    sub     sp, sp, #272
    str     x0, [sp, #248]          // stack pointer at the fault
    mrs     x0, tpidr_el0
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    str     x30, [sp, #240]
    mov     x0, sp
    mov     x1, #\kind
    bl      baton_fault
1:  wfe
    b       1b
.endm

fault_sync:   fault_with 0
fault_irq:    fault_with 1
fault_serror: fault_with 2
