// Exception vectors of EL2.
//
// While a guest runs, SP_EL2 points to its vCPU's register file, so an exit stores there at once, without a scratch
// register. EL2's stack is empty at every guest entry: an exit takes its top from the per-CPU block.
//
// Three depths of saving, each going over into the next one:
// - a hypercall saves what a procedure call may change (x0 to x18, x30), and asks `baton_call`;
// - an access to a device or a system register saves x20 to x29, too, since it may name any register, and asks
//   `baton_access` or `baton_register`;
// - what those two don't serve, or when this CPU has other work (CPU_WORK), ELR and SPSR are saved as well, and
//   `baton_exit` says which vCPU is resumed.
// The first two leave ELR_EL2 and SPSR_EL2 in the system registers: nothing but this exit happens until the return.
//
// CPU_WORK is looked at after the exit was served. Who sets it later on another CPU sends an interrupt after that,
// which is taken as soon as the guest runs: interrupts are masked here and unmasked by ERET.
//
// An exception taken *from* EL2 is a fault of Baton: it's reported from a stack of its own, since the fault may be an
// overflow of the normal one.

.equ CPU_VCPU,      0
.equ CPU_FAULT_SP,  8
.equ CPU_SCRATCH,   16
.equ CPU_STACK,     32
.equ CPU_WORK,      40
.equ CPU_REMEDY,    44

// What `baton_access` and `baton_register` answer, and the kinds of exits that `baton_exit` is told.
.equ RESUME,        0               // registers saved by the callee are as they were
.equ RESUME_ALL,    1
.equ SYNCHRONOUS,   2               // and no number above is a kind
.equ SERVED,        3
.equ INTERRUPT,     4
.equ SERROR,        5

.equ EC_HVC64,      0x16
.equ EC_SYSTEM,     0x18
.equ EC_DATA_ABORT, 0x24

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

// The same for a CPU whose branch predictor a guest can train against EL2, and whose firmware knows how to clear it
// (control-plane/src/speculation.rs): before the first indirect branch the firmware is called, SMCCC_ARCH_WORKAROUND_1 or 3. It changes x0 to x3
// at most (Arm DEN 0028, 2.6), which lie in the register file meanwhile. The branch back is direct.
.macro hardened label
    .balign 0x80
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    mrs     x0, tpidr_el2
    ldr     w0, [x0, #CPU_REMEDY]
    smc     #0
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp, #0]
    b       \label
.endm

.balign 0x800
.global baton_vectors_hardened
baton_vectors_hardened:
    ventry  fault_sync
    ventry  fault_irq
    ventry  fault_irq
    ventry  fault_serror
    ventry  fault_sync
    ventry  fault_irq
    ventry  fault_irq
    ventry  fault_serror
    hardened exit_sync
    hardened exit_irq
    hardened exit_irq
    hardened exit_serror
    hardened exit_sync
    hardened exit_irq
    hardened exit_irq
    hardened exit_serror

// Saves x0 to x19 and x30; x0 = register file, x1 = per-CPU block, SP = EL2's stack.
.macro enter
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    mrs     x1, tpidr_el2
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    ldr     x2, [x1, #CPU_STACK]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    str     x30, [sp, #240]
    mov     x0, sp
    mov     sp, x2
.endm

.macro save_callee_saved
    stp     x20, x21, [x0, #160]
    stp     x22, x23, [x0, #176]
    stp     x24, x25, [x0, #192]
    stp     x26, x27, [x0, #208]
    stp     x28, x29, [x0, #224]
.endm

.macro load_callee_saved
    ldp     x28, x29, [x0, #224]
    ldp     x26, x27, [x0, #208]
    ldp     x24, x25, [x0, #192]
    ldp     x22, x23, [x0, #176]
    ldp     x20, x21, [x0, #160]
    ldr     x19, [x0, #152]
.endm

// Loads x0 to x18 and x30 from the register file and goes to the guest.
.macro leave registers
    mov     sp, \registers
    ldr     x30, [sp, #240]
    ldr     x18, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp, #0]
    eret
    dsb     nsh                     // no speculation past the return
    isb                             // (Spectre: straight-line)
.endm

exit_sync:
    enter
    mrs     x1, esr_el2
    ubfx    x2, x1, #26, #6
    cmp     x2, #EC_HVC64
    b.ne    other
    bl      baton_call              // (registers) -> whether it was answered
    mrs     x1, tpidr_el2
    ldr     x3, [x1, #CPU_VCPU]
    ldr     w2, [x1, #CPU_WORK]
    cbz     w0, 1f
    cbnz    w2, 2f
    leave   x3
1:  mov     x1, #SYNCHRONOUS
    b       3f
2:  mov     x1, #SERVED
3:  mov     x0, x3
    save_callee_saved
    b       exit

other:
    save_callee_saved
    cmp     x2, #EC_DATA_ABORT
    b.ne    4f
    bl      baton_access            // (registers, syndrome) -> RESUME, RESUME_ALL or SYNCHRONOUS
1:  mrs     x1, tpidr_el2
    ldr     x3, [x1, #CPU_VCPU]
    ldr     w2, [x1, #CPU_WORK]
    cbnz    w0, 2f
    cbnz    w2, 3f
    leave   x3
2:  cmp     w0, #RESUME_ALL
    mov     x0, x3
    mov     x1, #SYNCHRONOUS
    b.ne    exit
    cbnz    w2, 3f
    load_callee_saved
    leave   x0
3:  mov     x0, x3
    mov     x1, #SERVED
    b       exit
4:  cmp     x2, #EC_SYSTEM
    mov     x1, #SYNCHRONOUS
    b.ne    exit
    mrs     x1, esr_el2
    bl      baton_register          // likewise
    b       1b

exit_irq:
    enter
    save_callee_saved
    mov     x1, #INTERRUPT
    b       exit

exit_serror:
    enter
    save_callee_saved
    mov     x1, #SERROR

// exit(x0 = registers, x1 = kind): everything but ELR and SPSR is saved.
exit:
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x2, x3, [x0, #248]
    mov     x29, xzr
    bl      baton_exit              // (registers, kind) -> registers of the vCPU to run

// resume_guest(x0 = registers of the vCPU to run)
.global resume_guest
resume_guest:
    mrs     x1, tpidr_el2
    str     x0, [x1, #CPU_VCPU]
    ldp     x2, x3, [x0, #248]
    msr     elr_el2, x2
    msr     spsr_el2, x3
    load_callee_saved
    leave   x0

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
