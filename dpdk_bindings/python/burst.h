/* Bursts as Python objects: the gate where borrowed memory leaves C's contract ("garbage after
 * release") and enters Python's ("raises, never corrupts").
 *
 * Why not cffi: ownership needs the buffer protocol. A memoryview of an item, and every slice of
 * it, holds an export of its Burst; the Burst counts them, refuses to be released while one lives
 * (BufferError), and after release gives out no more. cffi buffers know nothing of release. And a
 * method of a C type costs half of a cffi call behind a Python method.
 *
 * Bursts that were dropped instead of released are set aside, counted, and given back by their
 * source's own thread when it next takes a burst: a destructor may run in another thread, where
 * native code may be polling at that moment.
 *
 * Ports and datagram endpoints share all of this and differ in what they hand out. A file that
 * includes this one (once) says so beforehand:
 *
 *     #define BURST_ITEM struct dpb_frame       has data, len, arrival_ns, clock
 *     #define BURST_OPS struct dpb_port_ops     has abi, size, release, flush, and
 *     #define BURST_TAKE poll                   the function of it that fills items
 *     #define BURST_NOUN "frame"                what an item is called in errors
 *     #define BURST_SOURCE "port"               and where it comes from
 *
 * and begins its own source type with a `Source`. */
#ifndef DPDK_BINDINGS_PYTHON_BURST_H
#define DPDK_BINDINGS_PYTHON_BURST_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BURST 4096

/* An array of items; on its source's list of spare ones, of dropped ones, or with a Burst. */
struct slot {
    struct slot *next;
    int n;
    BURST_ITEM items[];
};

typedef struct {
    PyObject_HEAD
    const BURST_OPS *ops; /* NULL until opened */
    void *native;
    PyObject *owner;      /* keeps the items' memory alive */
    PyObject *empty;      /* what is handed out when nothing came */
    struct slot *spare, *dropped;
    int burst;            /* the most items at once */
    bool closed;
    unsigned long long leaked;
} Source;

typedef struct {
    PyObject_HEAD
    Source *source;       /* NULL: the empty burst */
    struct slot *slot;    /* NULL once released */
    Py_ssize_t exports;   /* live memoryviews of items and of the array, slices included */
    Py_ssize_t exporting; /* the item that the memoryview being made is of, or -1: the array */
} Burst;

static PyTypeObject *burst_type;
static PyObject *released_error, *bindings_error; /* of dpdk_bindings.errors */

static PyObject *raise_errno(int code)
{
    errno = code;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* ---- Burst ---- */

static bool borrowed(Burst *self)
{
    if (self->slot || !self->source)
        return true;
    PyErr_SetString(released_error, "this burst was released; its " BURST_NOUN
                                    "s belong to the " BURST_SOURCE " again");
    return false;
}

static Py_ssize_t burst_len(PyObject *object)
{
    Burst *self = (Burst *)object;
    if (!borrowed(self))
        return -1;
    return self->slot ? self->slot->n : 0;
}

static BURST_ITEM *item_at(Burst *self, Py_ssize_t index)
{
    Py_ssize_t n = burst_len((PyObject *)self);
    if (n < 0)
        return NULL;
    if (index < 0 || index >= n) {
        PyErr_Format(PyExc_IndexError, BURST_NOUN " %zd of a burst of %zd", index, n);
        return NULL;
    }
    return &self->slot->items[index];
}

/* The item that a method's argument names, borrowed from the burst; NULL with an exception. */
static BURST_ITEM *item_of(PyObject *object, PyObject *index)
{
    Py_ssize_t i = PyNumber_AsSsize_t(index, PyExc_IndexError);
    return i == -1 && PyErr_Occurred() ? NULL : item_at((Burst *)object, i);
}

static int burst_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    Burst *self = (Burst *)object;
    Py_ssize_t which = self->exporting;
    self->exporting = -1;
    view->obj = NULL;
    if (!borrowed(self))
        return -1;
    static char nothing;
    void *bytes = &nothing;
    Py_ssize_t size = 0;
    if (self->slot && which >= 0) {
        bytes = (void *)self->slot->items[which].data;
        size = self->slot->items[which].len;
    } else if (self->slot) {
        bytes = self->slot->items;
        size = self->slot->n * (Py_ssize_t)sizeof(BURST_ITEM);
    }
    if (PyBuffer_FillInfo(view, object, bytes, size, 1, flags) < 0)
        return -1;
    self->exports++;
    return 0;
}

static void burst_releasebuffer(PyObject *object, Py_buffer *view)
{
    ((Burst *)object)->exports--;
}

static PyObject *burst_item(PyObject *object, Py_ssize_t index)
{
    Burst *self = (Burst *)object;
    if (!item_at(self, index))
        return NULL;
    self->exporting = index; /* read at once by burst_getbuffer */
    PyObject *view = PyMemoryView_FromObject(object);
    self->exporting = -1;
    return view;
}

/* Gives the items back; the slot becomes a spare one. */
static void give_back(Source *source, struct slot *slot)
{
    source->ops->release(source->native, slot->items, slot->n);
    slot->next = source->spare;
    source->spare = slot;
}

static PyObject *burst_release(PyObject *object, PyObject *unused)
{
    Burst *self = (Burst *)object;
    if (!self->source)
        Py_RETURN_NONE; /* the empty burst borrows nothing */
    if (!borrowed(self))
        return NULL;
    if (self->exports) {
        PyErr_Format(PyExc_BufferError,
                     "%zd views of this burst are alive; delete them (or copy: bytes(view)) before "
                     "release()",
                     self->exports);
        return NULL;
    }
    struct slot *slot = self->slot;
    self->slot = NULL;
    give_back(self->source, slot);
    Py_RETURN_NONE;
}

static PyObject *burst_enter(PyObject *object, PyObject *unused)
{
    return borrowed((Burst *)object) ? Py_NewRef(object) : NULL;
}

static PyObject *burst_exit(PyObject *object, PyObject *arguments)
{
    Burst *self = (Burst *)object;
    PyObject *kind = PyTuple_GetItem(arguments, 0);
    if (!kind)
        return NULL;
    /* While an exception travels, its traceback may hold views: the burst is then given back as a
     * dropped one when they are gone. */
    if (!self->slot || (kind != Py_None && self->exports))
        Py_RETURN_NONE;
    return burst_release(object, NULL);
}

static PyObject *burst_arrival_ns(PyObject *object, PyObject *index)
{
    BURST_ITEM *item = item_of(object, index);
    return item ? PyLong_FromUnsignedLongLong(item->arrival_ns) : NULL;
}

static PyObject *burst_clock(PyObject *object, PyObject *index)
{
    BURST_ITEM *item = item_of(object, index);
    return item ? PyLong_FromLong(item->clock) : NULL;
}

static PyObject *burst_address(PyObject *object, void *unused)
{
    Burst *self = (Burst *)object;
    return borrowed(self) ? PyLong_FromVoidPtr(self->slot ? self->slot->items : NULL) : NULL;
}

static PyObject *burst_released(PyObject *object, void *unused)
{
    Burst *self = (Burst *)object;
    return PyBool_FromLong(self->source && !self->slot);
}

static void burst_dealloc(PyObject *object)
{
    Burst *self = (Burst *)object;
    if (self->slot) {
        self->slot->next = self->source->dropped;
        self->source->dropped = self->slot;
    }
    Py_XDECREF((PyObject *)self->source);
    PyTypeObject *type = Py_TYPE(object);
    PyObject_Free(object);
    Py_DECREF(type);
}

/* A new reference; `source` NULL makes the empty burst. The slot stays the caller's on failure. */
static Burst *burst_new(Source *source, struct slot *slot)
{
    Burst *burst = PyObject_New(Burst, burst_type);
    if (!burst)
        return NULL;
    burst->source = source;
    Py_XINCREF((PyObject *)source);
    burst->slot = slot;
    burst->exports = 0;
    burst->exporting = -1;
    return burst;
}

/* The methods that every burst has; the includer's array adds its own and ends it. */
#define BURST_METHODS                                                                             \
    {"release", burst_release, METH_NOARGS, NULL},                                                \
    {"arrival_ns", burst_arrival_ns, METH_O, NULL},                                               \
    {"clock", burst_clock, METH_O, NULL},                                                         \
    {"__enter__", burst_enter, METH_NOARGS, NULL},                                                \
    {"__exit__", burst_exit, METH_VARARGS, NULL}

static PyGetSetDef burst_getset[] = {
    {"address", burst_address, NULL, NULL, NULL},
    {"released", burst_released, NULL, NULL, NULL},
    {0},
};

/* ---- Source ---- */

static bool source_usable(Source *self)
{
    if (self->ops && !self->closed)
        return true;
    PyErr_SetString(bindings_error, self->ops ? "this " BURST_SOURCE " was closed"
                                              : "this " BURST_SOURCE " was never opened");
    return false;
}

/* 0, or -1 with an exception. `ops` must fit the ABI that was compiled in. */
static int source_open(Source *self, const BURST_OPS *ops, unsigned abi, void *native,
                       PyObject *owner, int burst)
{
    if (self->ops) {
        PyErr_SetString(PyExc_RuntimeError, "this " BURST_SOURCE " was opened before");
        return -1;
    }
    if (burst < 1 || burst > MAX_BURST) {
        PyErr_Format(PyExc_ValueError, "burst=%d: must be 1 to %d", burst, MAX_BURST);
        return -1;
    }
    if (!ops || ops->abi != abi || ops->size < sizeof *ops) {
        PyErr_Format(PyExc_ValueError, "not the function table of the " BURST_SOURCE " (ABI %u)",
                     abi);
        return -1;
    }
    if (!(self->empty = (PyObject *)burst_new(NULL, NULL)))
        return -1;
    self->native = native;
    self->owner = Py_NewRef(owner);
    self->burst = burst;
    self->ops = ops;
    return 0;
}

static void collect_dropped(Source *self)
{
    struct slot *slot;
    while ((slot = self->dropped)) {
        self->dropped = slot->next;
        self->leaked += (unsigned long long)slot->n;
        give_back(self, slot);
    }
}

static PyObject *source_take(PyObject *object, PyObject *unused)
{
    Source *self = (Source *)object;
    if (!source_usable(self))
        return NULL;
    if (self->dropped)
        collect_dropped(self);
    struct slot *slot = self->spare;
    if (!slot) {
        slot = malloc(sizeof *slot + (size_t)self->burst * sizeof *slot->items);
        if (!slot)
            return PyErr_NoMemory();
        slot->next = NULL;
        self->spare = slot;
    }
    int n = self->ops->BURST_TAKE(self->native, slot->items, self->burst);
    if (n == 0)
        return Py_NewRef(self->empty);
    if (n < 0)
        return raise_errno(-n);
    slot->n = n;
    Burst *burst = burst_new(self, slot);
    if (!burst) {
        self->ops->release(self->native, slot->items, n);
        return NULL;
    }
    self->spare = slot->next;
    return (PyObject *)burst;
}

/* The bytes of `object`, of a length that can be sent, into *bytes for PyBuffer_Release(); 0, or
 * -1 with an exception and nothing to release. */
static int bytes_to_send(PyObject *object, Py_buffer *bytes, const char *what)
{
    if (PyObject_GetBuffer(object, bytes, PyBUF_SIMPLE) < 0)
        return -1;
    if (bytes->len > 0 && bytes->len <= UINT32_MAX)
        return 0;
    PyErr_Format(PyExc_ValueError, "a %s of %zd bytes cannot be sent", what, bytes->len);
    PyBuffer_Release(bytes);
    return -1;
}

/* Copies *bytes into what reserve() gave, queues it and releases *bytes; False where there was no
 * room. */
static PyObject *source_fill(Source *self, uint8_t *room, Py_buffer *bytes)
{
    int result = 0;
    if (room) {
        memcpy(room, bytes->buf, (size_t)bytes->len);
        result = self->ops->commit(self->native, (uint32_t)bytes->len);
    }
    PyBuffer_Release(bytes);
    return result < 0 ? raise_errno(-result) : PyBool_FromLong(room != NULL);
}

static PyObject *source_end(PyObject *object, PyObject *unused)
{
    Source *self = (Source *)object;
    if (self->ops && !self->closed)
        collect_dropped(self);
    self->closed = true;
    Py_RETURN_NONE;
}

static PyObject *source_leaked(PyObject *object, void *unused)
{
    Source *self = (Source *)object;
    unsigned long long leaked = self->leaked;
    for (struct slot *slot = self->dropped; slot; slot = slot->next)
        leaked += (unsigned long long)slot->n;
    return PyLong_FromUnsignedLongLong(leaked);
}

static PyObject *source_closed(PyObject *object, void *unused)
{
    return PyBool_FromLong(((Source *)object)->closed);
}

static void source_dealloc(PyObject *object)
{
    Source *self = (Source *)object;
    if (self->ops && !self->closed)
        collect_dropped(self);
    struct slot *lists[] = {self->spare, self->dropped};
    for (int i = 0; i < 2; i++)
        for (struct slot *slot = lists[i], *next; slot; slot = next) {
            next = slot->next;
            free(slot);
        }
    Py_XDECREF(self->empty);
    Py_XDECREF(self->owner);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyGetSetDef source_getset[] = {
    {"leaked", source_leaked, NULL, NULL, NULL},
    {"closed", source_closed, NULL, NULL, NULL},
    {0},
};

/* Makes the module of both types; NULL with an exception. */
static PyObject *burst_module(struct PyModuleDef *module, PyType_Spec *burst, const char *burst_name,
                              PyType_Spec *source, const char *source_name)
{
    PyObject *errors = PyImport_ImportModule("dpdk_bindings.errors");
    if (!errors)
        return NULL;
    released_error = PyObject_GetAttrString(errors, "Released");
    bindings_error = PyObject_GetAttrString(errors, "BindingsError");
    Py_DECREF(errors);
    PyObject *self = PyModule_Create(module);
    PyObject *a = PyType_FromSpec(burst), *b = PyType_FromSpec(source);
    burst_type = (PyTypeObject *)a; /* a reference that is never given back: types live for ever */
    if (!released_error || !bindings_error || !self || !a || !b ||
        PyModule_AddObjectRef(self, burst_name, a) < 0 ||
        PyModule_AddObjectRef(self, source_name, b) < 0) {
        Py_XDECREF(self);
        Py_XDECREF(b);
        return NULL;
    }
    Py_DECREF(b);
    return self;
}

#endif
