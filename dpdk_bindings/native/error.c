#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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
