#include "error.h"

#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int dpb_fail(struct dpb_error *error, int code, const char *format, ...)
{
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        int n = vsnprintf(error->what, sizeof error->what, format, arguments);
        va_end(arguments);
        if (n > 0 && (size_t)n < sizeof error->what)
            snprintf(error->what + n, sizeof error->what - n, ": %s", strerror(code));
        error->hint[0] = 0;
        error->code = code;
    }
    return -code;
}

void dpb_hint(struct dpb_error *error, const char *format, ...)
{
    if (!error)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->hint, sizeof error->hint, format, arguments);
    va_end(arguments);
}

/* What the process may do now; all of it where the kernel does not say. */
static uint64_t effective(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capget, &header, data) < 0)
        return UINT64_MAX;
    uint64_t held = (uint64_t)data[1].effective << 32 | data[0].effective;
    if (held & UINT64_C(1) << CAP_SYS_ADMIN)
        held |= DPB_CAP_BPF; /* which is a part of it */
    return held;
}

void dpb_hint_capabilities(struct dpb_error *error, uint64_t needed)
{
    static const struct {
        uint64_t bit;
        const char *name;
    } NAMES[] = {
        {DPB_CAP_BPF, "CAP_BPF"},
        {DPB_CAP_NET_ADMIN, "CAP_NET_ADMIN"},
        {DPB_CAP_NET_RAW, "CAP_NET_RAW"},
        {DPB_CAP_IPC_LOCK, "CAP_IPC_LOCK"},
    };
    uint64_t lacking = needed & ~effective();
    uint64_t named = lacking ? lacking : needed;
    char list[128] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        if (named & NAMES[i].bit)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used ? " and " : "",
                                     NAMES[i].name);
    if (lacking)
        dpb_hint(error, "the process lacks %s", list);
    else
        dpb_hint(error,
                 "the process has %s, but in a user namespace perhaps, or a security module, "
                 "seccomp or a lockdown of the kernel forbids it",
                 list);
}
