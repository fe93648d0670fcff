/* An assembler for BPF, small enough to read: one function an instruction, labels by number.
 *
 * Compiling C for BPF would put clang on every host or a binary nobody can review into the
 * repository. A program of a hundred instructions needs neither. Mistakes are found by the
 * kernel's verifier, whose words reach the user.
 *
 * A label may be used before it is placed; only forward jumps exist, so programs end. */
#ifndef DPB_BPF_ASM_H
#define DPB_BPF_ASM_H

#include <assert.h>
#include <linux/bpf.h>
#include <stdint.h>

enum { R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP };
enum { U32 = BPF_W, U16 = BPF_H, U8 = BPF_B, U64 = BPF_DW };

#define BPF_ASM_MAX 256
#define BPF_ASM_LABELS 16

struct bpf_asm {
    struct bpf_insn code[BPF_ASM_MAX];
    uint32_t n;
    int16_t waiting[BPF_ASM_MAX]; /* the label that a jump at this place waits for, or -1 */
};

static inline void bpf_emit(struct bpf_asm *a, uint8_t op, int dst, int src, int off, int32_t imm)
{
    assert(a->n < BPF_ASM_MAX);
    a->waiting[a->n] = -1;
    a->code[a->n++] = (struct bpf_insn){
        .code = op, .dst_reg = dst & 15, .src_reg = src & 15, .off = off, .imm = imm};
}

static inline void bpf_mov(struct bpf_asm *a, int dst, int src)
{
    bpf_emit(a, BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0);
}
static inline void bpf_set(struct bpf_asm *a, int dst, int32_t value)
{
    bpf_emit(a, BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value);
}
static inline void bpf_set_u64(struct bpf_asm *a, int dst, uint64_t value)
{
    bpf_emit(a, BPF_LD | BPF_IMM | BPF_DW, dst, 0, 0, (int32_t)value);
    bpf_emit(a, 0, 0, 0, 0, (int32_t)(value >> 32));
}
/* dst = dst OP src */
static inline void bpf_alu_reg(struct bpf_asm *a, int op, int dst, int src)
{
    bpf_emit(a, BPF_ALU64 | op | BPF_X, dst, src, 0, 0);
}
/* dst = dst OP value; OP: BPF_ADD, BPF_AND, BPF_RSH, ... */
static inline void bpf_alu(struct bpf_asm *a, int op, int dst, int32_t value)
{
    bpf_emit(a, BPF_ALU64 | op | BPF_K, dst, 0, 0, value);
}
static inline void bpf_load(struct bpf_asm *a, int width, int dst, int base, int offset)
{
    bpf_emit(a, BPF_LDX | BPF_MEM | width, dst, base, offset, 0);
}
static inline void bpf_store(struct bpf_asm *a, int width, int base, int offset, int src)
{
    bpf_emit(a, BPF_STX | BPF_MEM | width, base, src, offset, 0);
}
static inline void bpf_store_value(struct bpf_asm *a, int width, int base, int offset, int32_t v)
{
    bpf_emit(a, BPF_ST | BPF_MEM | width, base, 0, offset, v);
}
/* *(u64 *)base += src, atomically */
static inline void bpf_atomic_add(struct bpf_asm *a, int base, int offset, int src)
{
    bpf_emit(a, BPF_STX | BPF_ATOMIC | BPF_DW, base, src, offset, BPF_ADD);
}
static inline void bpf_load_map(struct bpf_asm *a, int dst, int map_fd)
{
    bpf_emit(a, BPF_LD | BPF_IMM | BPF_DW, dst, BPF_PSEUDO_MAP_FD, 0, map_fd);
    bpf_emit(a, 0, 0, 0, 0, 0);
}
/* dst = address of byte `offset` of the only value of an array map */
static inline void bpf_load_map_value(struct bpf_asm *a, int dst, int map_fd, int offset)
{
    bpf_emit(a, BPF_LD | BPF_IMM | BPF_DW, dst, BPF_PSEUDO_MAP_VALUE, 0, map_fd);
    bpf_emit(a, 0, 0, 0, 0, offset);
}
static inline void bpf_call(struct bpf_asm *a, int helper)
{
    bpf_emit(a, BPF_JMP | BPF_CALL, 0, 0, 0, helper);
}
static inline void bpf_call_kfunc(struct bpf_asm *a, int btf_id)
{
    bpf_emit(a, BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, btf_id);
}
static inline void bpf_exit(struct bpf_asm *a)
{
    bpf_emit(a, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}
static inline void bpf_goto(struct bpf_asm *a, int label)
{
    bpf_emit(a, BPF_JMP | BPF_JA, 0, 0, 0, 0);
    a->waiting[a->n - 1] = label;
}
/* if (dst OP value) goto label; OP: BPF_JEQ, BPF_JNE, ... */
static inline void bpf_if(struct bpf_asm *a, int op, int dst, int32_t value, int label)
{
    bpf_emit(a, BPF_JMP | op | BPF_K, dst, 0, 0, value);
    a->waiting[a->n - 1] = label;
}
/* if (dst OP src) goto label */
static inline void bpf_if_reg(struct bpf_asm *a, int op, int dst, int src, int label)
{
    bpf_emit(a, BPF_JMP | op | BPF_X, dst, src, 0, 0);
    a->waiting[a->n - 1] = label;
}
/* Here is `label`: every jump that waits for it lands on the next instruction. */
static inline void bpf_label(struct bpf_asm *a, int label)
{
    for (uint32_t i = 0; i < a->n; i++)
        if (a->waiting[i] == label) {
            a->code[i].off = (int16_t)(a->n - i - 1);
            a->waiting[i] = -1;
        }
}

#endif
