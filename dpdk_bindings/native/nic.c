#include "nic.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int ethtool(int sock, struct ifreq *request, void *command)
{
    request->ifr_data = command;
    return ioctl(sock, SIOCETHTOOL, request);
}

int dpb_nic_ask(struct dpb_nic *nic, const char *name, struct dpb_error *error)
{
    memset(nic, 0, sizeof *nic);
    if (strlen(name) >= sizeof nic->name)
        return dpb_fail(error, ENODEV, "interface \"%.64s\": longer than a name can be", name);
    strcpy(nic->name, name);
    nic->ifindex = if_nametoindex(name);
    if (!nic->ifindex) {
        dpb_fail(error, ENODEV, "interface \"%s\"", name);
        dpb_hint(error, "`ip link` lists the interfaces of this network namespace");
        return -ENODEV;
    }
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0)
        return dpb_fail(error, errno, "asking about interface \"%s\"", name);
    struct ifreq request = {0};
    strcpy(request.ifr_name, name);
    if (ioctl(sock, SIOCGIFMTU, &request) < 0) {
        int code = errno;
        close(sock);
        return dpb_fail(error, code, "asking the MTU of interface \"%s\"", name);
    }
    nic->mtu = request.ifr_mtu;

    struct ethtool_drvinfo driver = {.cmd = ETHTOOL_GDRVINFO};
    if (ethtool(sock, &request, &driver) == 0)
        snprintf(nic->driver, sizeof nic->driver, "%.31s", driver.driver);
    struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
    if (ethtool(sock, &request, &channels) == 0)
        nic->rx_queues = channels.rx_count + channels.combined_count;
    if (nic->rx_queues == 0)
        nic->rx_queues = 1; /* loopback, tun, dummy: drivers with one queue do not answer */
    close(sock);
    return 0;
}
