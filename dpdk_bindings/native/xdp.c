#include "xdp.h"

#include "bpf.h"
#include "bpf_asm.h"
#include "dpdk_bindings/frame.h"
#include "kernel_abi.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

_Static_assert(sizeof(struct dpb_flow) == 40, "the program builds this key on its stack");
_Static_assert(sizeof(struct dpb_xdp_stamp) == 16, "the program writes this stamp");

enum label { PASS, TAGGED, UNTAGGED, V4, V6, PORTS, UDP, LOOKUP, MONO, STAMP, REDIRECT,
             FITS, FRAGMENT, OPTIONS, TAGS, MERGED, COUNT, DONE };

#define KEY(field) ((int)offsetof(struct dpb_flow, field) - 40)
#define STAMPED(field) ((int)offsetof(struct dpb_xdp_stamp, field))
#define TIME (-48) /* on the stack: where the driver's answer goes */
#define LENGTH (-48) /* and the length that is compared with the MTU */

/* Bounds: goto PASS unless packet bytes base[0..need) exist. Leaves R2 used. */
static void need(struct bpf_asm *a, int base, int bytes)
{
    bpf_mov(a, R2, base);
    bpf_alu(a, BPF_ADD, R2, bytes);
    bpf_if_reg(a, BPF_JGT, R2, R8, PASS);
}

/* R6 context, R7 frame, R8 its end, R9 the header being read. */
static void parse(struct bpf_asm *a)
{
    bpf_mov(a, R6, R1);
    bpf_load(a, U32, R7, R6, offsetof(struct xdp_md, data));
    bpf_load(a, U32, R8, R6, offsetof(struct xdp_md, data_end));
    for (int at = -40; at < 0; at += 8)
        bpf_store_value(a, U64, FP, at, 0);

    need(a, R7, 14);
    bpf_mov(a, R9, R7);
    bpf_alu(a, BPF_ADD, R9, 14);
    bpf_load(a, U16, R3, R7, 12);
    bpf_if(a, BPF_JEQ, R3, htons(0x8100), TAGGED);
    bpf_if(a, BPF_JEQ, R3, htons(0x88a8), TAGS); /* IEEE 802.1ad: headers.h does not know it */
    bpf_goto(a, UNTAGGED);
    bpf_label(a, TAGGED);
    need(a, R7, 18);
    bpf_load(a, U16, R3, R7, 16);
    bpf_if(a, BPF_JEQ, R3, htons(0x8100), TAGS);
    bpf_if(a, BPF_JEQ, R3, htons(0x88a8), TAGS);
    bpf_alu(a, BPF_ADD, R9, 4);
    bpf_label(a, UNTAGGED);
    bpf_if(a, BPF_JEQ, R3, htons(0x0800), V4);
    bpf_if(a, BPF_JEQ, R3, htons(0x86dd), V6);
    bpf_goto(a, PASS);

    bpf_label(a, V4);
    need(a, R9, 20 + 4);
    bpf_load(a, U8, R3, R9, 0);
    bpf_if(a, BPF_JNE, R3, 0x45, OPTIONS);
    bpf_load(a, U16, R3, R9, 6);
    bpf_alu(a, BPF_AND, R3, htons(0x3fff)); /* more fragments, or an offset */
    bpf_if(a, BPF_JNE, R3, 0, FRAGMENT);
    bpf_store_value(a, U8, FP, KEY(family), 4);
    bpf_load(a, U8, R4, R9, 9);
    bpf_load(a, U32, R3, R9, 16);
    bpf_store(a, U32, FP, KEY(local), R3);
    bpf_load(a, U32, R3, R9, 12);
    bpf_store(a, U32, FP, KEY(remote), R3);
    bpf_alu(a, BPF_ADD, R9, 20);
    bpf_goto(a, PORTS);

    bpf_label(a, V6);
    need(a, R9, 40 + 4);
    bpf_load(a, U8, R3, R9, 0);
    bpf_alu(a, BPF_RSH, R3, 4);
    bpf_if(a, BPF_JNE, R3, 6, PASS);
    bpf_store_value(a, U8, FP, KEY(family), 6);
    bpf_load(a, U8, R4, R9, 6);
    bpf_if(a, BPF_JEQ, R4, 44, FRAGMENT); /* IPPROTO_FRAGMENT */
    for (int at = 0; at < 16; at += 8) {
        bpf_load(a, U64, R3, R9, 24 + at);
        bpf_store(a, U64, FP, KEY(local) + at, R3);
        bpf_load(a, U64, R3, R9, 8 + at);
        bpf_store(a, U64, FP, KEY(remote) + at, R3);
    }
    bpf_alu(a, BPF_ADD, R9, 40);

    bpf_label(a, PORTS);
    bpf_store(a, U8, FP, KEY(protocol), R4);
    bpf_load(a, U16, R3, R9, 2);
    bpf_store(a, U16, FP, KEY(local_port), R3);
    bpf_if(a, BPF_JEQ, R4, 17, UDP);
    bpf_if(a, BPF_JNE, R4, 6, PASS);
    bpf_load(a, U16, R3, R9, 0);
    bpf_store(a, U16, FP, KEY(remote_port), R3);
    bpf_goto(a, LOOKUP);
    bpf_label(a, UDP); /* from anyone */
    bpf_store_value(a, U64, FP, KEY(remote), 0);
    bpf_store_value(a, U64, FP, KEY(remote) + 8, 0);
}

/* What this process's CLOCK_MONOTONIC is ahead of the host's, which the program reads: not 0 in a
 * time namespace only. The file is of the process's children, and of itself as it began in its time
 * namespace by fork or exec (time_namespaces(7)). 0 or a negative errno. */
static int read_ahead_ns(int64_t *ahead_ns, struct dpb_error *error)
{
    *ahead_ns = 0;
    FILE *file = fopen("/proc/self/timens_offsets", "re");
    if (!file && errno == ENOENT) /* a kernel without time namespaces */
        return 0;
    long long s, ns;
    int found = file ? fscanf(file, "monotonic %lld %lld", &s, &ns) : -1;
    int code = file ? EINVAL : errno;
    if (file)
        fclose(file);
    if (found != 2)
        return dpb_fail(error, code, "reading /proc/self/timens_offsets, by which arrival times "
                                     "become this process's CLOCK_MONOTONIC");
    *ahead_ns = s * 1000000000 + ns;
    return 0;
}

/* R7 arrival time, R8 its clock, R9 the flow's number. */
static void take(struct bpf_asm *a, const struct dpb_xdp *xdp, int rx_timestamp, bool find_merged)
{
    bpf_label(a, LOOKUP);
    bpf_load_map(a, R1, xdp->flows);
    bpf_mov(a, R2, FP);
    bpf_alu(a, BPF_ADD, R2, -40);
    bpf_call(a, BPF_FUNC_map_lookup_elem);
    bpf_if(a, BPF_JEQ, R0, 0, PASS);
    bpf_load(a, U32, R9, R0, 0);

    if (find_merged) {
        /* Not of TCP: the kernel knows of no such connection, and would reset it. */
        bpf_load(a, U8, R3, FP, KEY(protocol));
        bpf_if(a, BPF_JNE, R3, 17, FITS);
        bpf_mov(a, R1, R6);
        bpf_call(a, BPF_FUNC_xdp_get_buff_len);
        bpf_alu(a, BPF_SUB, R0, 14 + 4); /* as if there were a tag: four bytes tell no two apart */
        bpf_store(a, U32, FP, LENGTH, R0);
        bpf_mov(a, R1, R6);
        bpf_set(a, R2, 0); /* this interface */
        bpf_mov(a, R3, FP);
        bpf_alu(a, BPF_ADD, R3, LENGTH);
        bpf_set(a, R4, 0);
        bpf_set(a, R5, 0);
        bpf_call(a, BPF_FUNC_check_mtu);
        bpf_if(a, BPF_JEQ, R0, BPF_MTU_CHK_RET_FRAG_NEEDED, MERGED);
        bpf_label(a, FITS);
    }
    if (rx_timestamp > 0) {
        bpf_store_value(a, U64, FP, TIME, 0);
        bpf_mov(a, R1, R6);
        bpf_mov(a, R2, FP);
        bpf_alu(a, BPF_ADD, R2, TIME);
        bpf_call_kfunc(a, rx_timestamp);
        bpf_if(a, BPF_JNE, R0, 0, MONO);
        bpf_load(a, U64, R7, FP, TIME);
        bpf_if(a, BPF_JEQ, R7, 0, MONO); /* veth says yes and gives nothing */
        bpf_set(a, R8, DPB_CLOCK_PHC);
        bpf_goto(a, STAMP);
    }
    bpf_label(a, MONO);
    bpf_call(a, BPF_FUNC_ktime_get_ns);
    bpf_mov(a, R7, R0);
    if (xdp->ahead_ns) {
        bpf_set_u64(a, R1, xdp->ahead_ns);
        bpf_alu_reg(a, BPF_ADD, R7, R1);
    }
    bpf_set(a, R8, DPB_CLOCK_MONO);

    bpf_label(a, STAMP);
    bpf_mov(a, R1, R6);
    bpf_set(a, R2, -(int)sizeof(struct dpb_xdp_stamp));
    bpf_call(a, BPF_FUNC_xdp_adjust_meta);
    bpf_if(a, BPF_JNE, R0, 0, REDIRECT); /* a driver without metadata: taken without a stamp */
    bpf_load(a, U32, R2, R6, offsetof(struct xdp_md, data));
    bpf_load(a, U32, R3, R6, offsetof(struct xdp_md, data_meta));
    bpf_mov(a, R4, R3);
    bpf_alu(a, BPF_ADD, R4, sizeof(struct dpb_xdp_stamp));
    bpf_if_reg(a, BPF_JGT, R4, R2, REDIRECT);
    bpf_store(a, U64, R3, STAMPED(arrival_ns), R7);
    bpf_store(a, U16, R3, STAMPED(flow), R9);
    bpf_store(a, U16, R3, STAMPED(clock), R8);
    bpf_set(a, R4, DPB_XDP_MAGIC);
    bpf_store(a, U32, R3, STAMPED(magic), R4);

    bpf_label(a, REDIRECT);
    bpf_load_map(a, R1, xdp->sockets);
    bpf_load(a, U32, R2, R6, offsetof(struct xdp_md, rx_queue_index));
    bpf_set(a, R3, XDP_PASS); /* the answer where the queue has no socket */
    bpf_call(a, BPF_FUNC_redirect_map);
    bpf_if(a, BPF_JEQ, R0, XDP_REDIRECT, DONE);
    bpf_load_map_value(a, R1, xdp->counters, offsetof(struct dpb_xdp_passed, unbound_queue));
    bpf_goto(a, COUNT);

    bpf_label(a, FRAGMENT);
    bpf_load_map_value(a, R1, xdp->counters, offsetof(struct dpb_xdp_passed, fragments));
    bpf_goto(a, COUNT);
    bpf_label(a, OPTIONS);
    bpf_load_map_value(a, R1, xdp->counters, offsetof(struct dpb_xdp_passed, options));
    bpf_goto(a, COUNT);
    bpf_label(a, TAGS);
    bpf_load_map_value(a, R1, xdp->counters, offsetof(struct dpb_xdp_passed, tags));
    if (find_merged) { /* the verifier wants no instruction that nothing leads to */
        bpf_goto(a, COUNT);
        bpf_label(a, MERGED);
        bpf_load_map_value(a, R1, xdp->counters, offsetof(struct dpb_xdp_passed, merged));
    }
    bpf_label(a, COUNT);
    bpf_set(a, R2, 1);
    bpf_atomic_add(a, R1, 0, R2);
    bpf_label(a, PASS);
    bpf_set(a, R0, XDP_PASS);
    bpf_label(a, DONE);
    bpf_exit(a);
}

static int load_program(struct dpb_xdp *xdp, int bound_to, uint32_t flags, int rx_timestamp,
                        bool find_merged, struct dpb_error *error)
{
    struct bpf_asm a = {0};
    parse(&a);
    take(&a, xdp, rx_timestamp, find_merged);
    return dpb_bpf_load_xdp(DPB_XDP_NAME, a.code, a.n, flags, bound_to, error->log,
                            sizeof error->log);
}

static int make_maps(struct dpb_xdp *xdp)
{
    xdp->flows = dpb_bpf_map(BPF_MAP_TYPE_HASH, "bw_flows", sizeof(struct dpb_flow), 4,
                             DPB_XDP_MAX_FLOWS);
    if (xdp->flows < 0)
        return xdp->flows;
    xdp->sockets = dpb_bpf_map(BPF_MAP_TYPE_XSKMAP, "bw_sockets", 4, 4, DPB_XDP_MAX_QUEUES);
    if (xdp->sockets < 0)
        return xdp->sockets;
    xdp->counters = dpb_bpf_map(BPF_MAP_TYPE_ARRAY, "bw_passed", 4, sizeof(struct dpb_xdp_passed),
                                1);
    return xdp->counters < 0 ? xdp->counters : 0;
}

int dpb_xdp_load(struct dpb_xdp *xdp, const struct dpb_nic *nic, enum dpb_xdp_mode mode,
                 bool several_buffers, struct dpb_error *error)
{
    *xdp = (struct dpb_xdp){.flows = -1, .sockets = -1, .counters = -1, .program = -1, .link = -1};
    int result = read_ahead_ns(&xdp->ahead_ns, error);
    if (result < 0)
        return result;
    result = make_maps(xdp);
    if (result < 0) {
        dpb_fail(error, -result, "making the BPF maps for interface \"%s\"", nic->name);
        if (result == -EPERM)
            dpb_hint_capabilities(error, DPB_CAP_BPF | DPB_CAP_NET_ADMIN);
        dpb_xdp_close(xdp);
        return result;
    }
    uint32_t flags = several_buffers ? BPF_F_XDP_HAS_FRAGS : 0;
    int rx_timestamp =
        mode == DPB_XDP_DRV ? dpb_btf_function("bpf_xdp_metadata_rx_timestamp") : -ENOENT;
    if (rx_timestamp > 0) {
        xdp->program = load_program(xdp, nic->ifindex, flags | BPF_F_XDP_DEV_BOUND_ONLY,
                                    rx_timestamp, false, error);
        xdp->asks_driver = xdp->program >= 0;
    }
    /* Elsewhere a frame longer than the MTU may be one datagram: of a sender with a larger one. */
    bool find_merged = mode == DPB_XDP_SKB && strcmp(nic->driver, "veth") == 0;
    if (xdp->program < 0) /* a driver that takes no program of its own, or a kernel before 6.3 */
        xdp->program = load_program(xdp, 0, flags, 0, find_merged, error);
    if (xdp->program == -EINVAL && find_merged) /* its helpers are of Linux 5.12 and 5.18 */
        xdp->program = load_program(xdp, 0, flags, 0, false, error);
    if (xdp->program < 0) {
        result = xdp->program;
        dpb_fail(error, -result, "loading the XDP program for interface \"%s\"", nic->name);
        if (result == -EPERM)
            dpb_hint_capabilities(error, DPB_CAP_BPF | DPB_CAP_NET_ADMIN);
        dpb_xdp_close(xdp);
        return result;
    }
    xdp->program_id = dpb_bpf_program_id(xdp->program);
    error->log[0] = 0;
    return 0;
}

int dpb_xdp_serve(struct dpb_xdp *xdp, uint32_t queue, int fd)
{
    return dpb_bpf_put(xdp->sockets, &queue, &fd, BPF_ANY);
}

static void drop(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int dpb_xdp_attach(struct dpb_xdp *xdp, const struct dpb_nic *nic, enum dpb_xdp_mode mode)
{
    uint32_t flags = mode == DPB_XDP_DRV ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
    drop(&xdp->link); /* of an attachment that is no more */
    xdp->link = dpb_bpf_attach_xdp(xdp->program, nic->ifindex, flags);
    return xdp->link < 0 ? xdp->link : 0;
}

int dpb_xdp_is_attached(const struct dpb_xdp *xdp)
{
    if (xdp->link < 0)
        return 0;
    int ifindex = dpb_bpf_link_ifindex(xdp->link);
    return ifindex < 0 ? ifindex : ifindex > 0;
}

int dpb_xdp_put_flow(struct dpb_xdp *xdp, const struct dpb_flow *flow, uint32_t number)
{
    return dpb_bpf_put(xdp->flows, flow, &number, BPF_NOEXIST);
}

int dpb_xdp_delete_flow(struct dpb_xdp *xdp, const struct dpb_flow *flow)
{
    return dpb_bpf_delete(xdp->flows, flow);
}

int dpb_xdp_read_passed(struct dpb_xdp *xdp, struct dpb_xdp_passed *passed)
{
    uint32_t only = 0;
    return dpb_bpf_get(xdp->counters, &only, passed);
}

void dpb_xdp_close(struct dpb_xdp *xdp)
{
    drop(&xdp->link);
    drop(&xdp->program);
    drop(&xdp->sockets);
    drop(&xdp->flows);
    drop(&xdp->counters);
}
