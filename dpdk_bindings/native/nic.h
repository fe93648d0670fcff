/* What the kernel says about an interface: asked once, when a port is opened. */
#ifndef DPB_NIC_H
#define DPB_NIC_H

#include "error.h"

#include <stdint.h>

struct dpb_nic {
    char name[16];
    char driver[32];
    int ifindex;
    uint32_t mtu;
    uint32_t rx_queues; /* receive queues in use now; 1 where the driver does not say */
};

/* Asks in the network namespace of the calling thread. 0 or a negative errno. */
int dpb_nic_ask(struct dpb_nic *nic, const char *name, struct dpb_error *error);

#endif
