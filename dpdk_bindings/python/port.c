/* Port and Burst as Python objects: the gate where frames leave C's contract ("garbage after
 * release") and enter Python's ("raises, never corrupts").
 *
 * Why not cffi: ownership needs the buffer protocol. A memoryview of a frame, and every slice of
 * it, holds an export of its Burst; the Burst counts them, refuses to be released while one lives
 * (BufferError), and after release gives out no more. cffi buffers know nothing of release. And a
 * method of a C type costs half of a cffi call behind a Python method.
 *
 * The module knows ports only by their function table (dpdk_bindings/port.h) and links with no
 * backend. Bursts that were dropped instead of released are set aside, counted, and given back by
 * the port's own thread at its next poll(): a destructor may run in another thread, where native
 * code may be polling at that moment. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <structmember.h>

#include "dpdk_bindings/port.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BURST 4096

/* A descriptor array of one burst; on the port's list of spare ones, of dropped ones, or with a
 * Burst. */
struct slot {
    struct slot *next;
    int n;
    struct dpb_frame frames[];
};

typedef struct {
    PyObject_HEAD
    const struct dpb_port_ops *ops;
    void *port;
    PyObject *owner;     /* keeps the frames' memory alive */
    PyObject *empty;     /* what poll() gives when nothing came; or NULL */
    struct slot *spare, *dropped;
    int burst;           /* frames a poll() */
    bool closed;
    unsigned long long leaked;
} Port;

typedef struct {
    PyObject_HEAD
    Port *port;          /* NULL: the empty burst */
    struct slot *slot;   /* NULL once released */
    Py_ssize_t exports;  /* live memoryviews of frames and descriptors, slices included */
    Py_ssize_t exporting; /* the frame that the memoryview being made is of, or -1: descriptors */
} Burst;

static PyTypeObject *burst_type;
static PyObject *released_error, *bindings_error; /* of dpdk_bindings.errors */

/* ---- Burst ---- */

static bool borrowed(Burst *self)
{
    if (self->slot || !self->port)
        return true;
    PyErr_SetString(released_error, "this burst was released; its frames belong to the port again");
    return false;
}

static Py_ssize_t burst_len(PyObject *object)
{
    Burst *self = (Burst *)object;
    if (!borrowed(self))
        return -1;
    return self->slot ? self->slot->n : 0;
}

static struct dpb_frame *frame_at(Burst *self, Py_ssize_t index)
{
    if (!borrowed(self))
        return NULL;
    Py_ssize_t n = self->slot ? self->slot->n : 0;
    if (index < 0 || index >= n) {
        PyErr_Format(PyExc_IndexError, "frame %zd of a burst of %zd", index, n);
        return NULL;
    }
    return &self->slot->frames[index];
}

static int burst_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    Burst *self = (Burst *)object;
    Py_ssize_t which = self->exporting;
    self->exporting = -1;
    if (!borrowed(self)) {
        view->obj = NULL;
        return -1;
    }
    static char nothing;
    void *bytes = &nothing;
    Py_ssize_t size = 0;
    if (self->slot && which >= 0) {
        bytes = (void *)self->slot->frames[which].data;
        size = self->slot->frames[which].len;
    } else if (self->slot) {
        bytes = self->slot->frames;
        size = self->slot->n * (Py_ssize_t)sizeof(struct dpb_frame);
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
    if (!frame_at(self, index))
        return NULL;
    self->exporting = index; /* read at once by burst_getbuffer */
    PyObject *view = PyMemoryView_FromObject(object);
    self->exporting = -1;
    return view;
}

static PyObject *burst_release(PyObject *object, PyObject *unused)
{
    Burst *self = (Burst *)object;
    if (!self->port)
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
    Port *port = self->port;
    self->slot = NULL;
    port->ops->release(port->port, slot->frames, slot->n);
    slot->next = port->spare;
    port->spare = slot;
    Py_RETURN_NONE;
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

static PyObject *burst_enter(PyObject *object, PyObject *unused)
{
    return borrowed((Burst *)object) ? Py_NewRef(object) : NULL;
}

static struct dpb_frame *frame_of(PyObject *object, PyObject *index)
{
    Py_ssize_t i = PyNumber_AsSsize_t(index, PyExc_IndexError);
    return i == -1 && PyErr_Occurred() ? NULL : frame_at((Burst *)object, i);
}

static PyObject *burst_arrival_ns(PyObject *object, PyObject *index)
{
    struct dpb_frame *frame = frame_of(object, index);
    return frame ? PyLong_FromUnsignedLongLong(frame->arrival_ns) : NULL;
}
static PyObject *burst_clock(PyObject *object, PyObject *index)
{
    struct dpb_frame *frame = frame_of(object, index);
    return frame ? PyLong_FromLong(frame->clock) : NULL;
}
static PyObject *burst_flow(PyObject *object, PyObject *index)
{
    struct dpb_frame *frame = frame_of(object, index);
    return frame ? PyLong_FromLong(frame->flow) : NULL;
}
static PyObject *burst_queue(PyObject *object, PyObject *index)
{
    struct dpb_frame *frame = frame_of(object, index);
    return frame ? PyLong_FromLong(frame->queue) : NULL;
}
static PyObject *burst_flags(PyObject *object, PyObject *index)
{
    struct dpb_frame *frame = frame_of(object, index);
    return frame ? PyLong_FromLong(frame->flags) : NULL;
}

static PyObject *burst_address(PyObject *object, void *unused)
{
    Burst *self = (Burst *)object;
    return borrowed(self) ? PyLong_FromVoidPtr(self->slot ? self->slot->frames : NULL) : NULL;
}

static PyObject *burst_released(PyObject *object, void *unused)
{
    Burst *self = (Burst *)object;
    return PyBool_FromLong(self->port && !self->slot);
}

static void burst_dealloc(PyObject *object)
{
    Burst *self = (Burst *)object;
    if (self->slot) {
        self->slot->next = self->port->dropped;
        self->port->dropped = self->slot;
    }
    Py_XDECREF((PyObject *)self->port);
    PyTypeObject *type = Py_TYPE(object);
    PyObject_Free(object);
    Py_DECREF(type);
}

static Burst *burst_new(Port *port, struct slot *slot)
{
    Burst *burst = PyObject_New(Burst, burst_type);
    if (!burst)
        return NULL;
    burst->port = port;
    Py_XINCREF((PyObject *)port);
    burst->slot = slot;
    burst->exports = 0;
    burst->exporting = -1;
    return burst;
}

static PyMethodDef burst_methods[] = {
    {"release", burst_release, METH_NOARGS, NULL},
    {"arrival_ns", burst_arrival_ns, METH_O, NULL},
    {"clock", burst_clock, METH_O, NULL},
    {"flow", burst_flow, METH_O, NULL},
    {"queue", burst_queue, METH_O, NULL},
    {"flags", burst_flags, METH_O, NULL},
    {"__enter__", burst_enter, METH_NOARGS, NULL},
    {"__exit__", burst_exit, METH_VARARGS, NULL},
    {0},
};

static PyGetSetDef burst_getset[] = {
    {"address", burst_address, NULL, NULL, NULL},
    {"released", burst_released, NULL, NULL, NULL},
    {0},
};

static PyType_Slot burst_slots[] = {
    {Py_tp_doc, "Frames borrowed from a Port until release()."},
    {Py_tp_dealloc, burst_dealloc},
    {Py_tp_methods, burst_methods},
    {Py_tp_getset, burst_getset},
    {Py_sq_length, burst_len},
    {Py_sq_item, burst_item},
    {Py_bf_getbuffer, burst_getbuffer},
    {Py_bf_releasebuffer, burst_releasebuffer},
    {0},
};

static PyType_Spec burst_spec = {
    .name = "dpdk_bindings.Burst",
    .basicsize = sizeof(Burst),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = burst_slots,
};

/* ---- Port ---- */

static bool open_for_use(Port *self)
{
    if (!self->closed && self->ops)
        return true;
    PyErr_SetString(bindings_error, self->ops ? "this port was closed" : "this port was never opened");
    return false;
}

static PyObject *raise_errno(int code)
{
    errno = code;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static void collect_dropped(Port *self)
{
    struct slot *slot;
    while ((slot = self->dropped)) {
        self->dropped = slot->next;
        self->leaked += slot->n;
        self->ops->release(self->port, slot->frames, slot->n);
        slot->next = self->spare;
        self->spare = slot;
    }
}

static PyObject *port_poll(PyObject *object, PyObject *unused)
{
    Port *self = (Port *)object;
    if (!open_for_use(self))
        return NULL;
    if (self->dropped)
        collect_dropped(self);
    struct slot *slot = self->spare;
    if (!slot) {
        slot = malloc(sizeof *slot + self->burst * sizeof *slot->frames);
        if (!slot)
            return PyErr_NoMemory();
        slot->next = NULL;
        self->spare = slot;
    }
    int n = self->ops->poll(self->port, slot->frames, self->burst);
    if (n == 0)
        return Py_NewRef(self->empty);
    if (n < 0)
        return raise_errno(-n);
    slot->n = n;
    Burst *burst = burst_new(self, slot);
    if (!burst) {
        self->ops->release(self->port, slot->frames, n);
        return NULL;
    }
    self->spare = slot->next;
    return (PyObject *)burst;
}

static PyObject *port_send(PyObject *object, PyObject *frame)
{
    Port *self = (Port *)object;
    if (!open_for_use(self))
        return NULL;
    Py_buffer bytes;
    if (PyObject_GetBuffer(frame, &bytes, PyBUF_SIMPLE) < 0)
        return NULL;
    if (bytes.len == 0 || bytes.len > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "a frame of %zd bytes cannot be sent", bytes.len);
        PyBuffer_Release(&bytes);
        return NULL;
    }
    uint8_t *room = self->ops->reserve(self->port, bytes.len);
    int result = 0;
    if (room) {
        memcpy(room, bytes.buf, bytes.len);
        result = self->ops->commit(self->port, bytes.len);
    }
    PyBuffer_Release(&bytes);
    if (result < 0)
        return raise_errno(-result);
    return PyBool_FromLong(room != NULL);
}

static PyObject *port_flush(PyObject *object, PyObject *unused)
{
    Port *self = (Port *)object;
    if (!open_for_use(self))
        return NULL;
    int result = self->ops->flush(self->port);
    if (result < 0)
        return raise_errno(-result);
    Py_RETURN_NONE;
}

static PyObject *port_ref(PyObject *object, PyObject *unused)
{
    Port *self = (Port *)object;
    if (!open_for_use(self))
        return NULL;
    return Py_BuildValue("(NN)", PyLong_FromVoidPtr((void *)self->ops),
                         PyLong_FromVoidPtr(self->port));
}

static PyObject *port_end(PyObject *object, PyObject *unused)
{
    Port *self = (Port *)object;
    if (!self->closed && self->ops)
        collect_dropped(self);
    self->closed = true;
    Py_RETURN_NONE;
}

static PyObject *port_leaked(PyObject *object, void *unused)
{
    Port *self = (Port *)object;
    unsigned long long waiting = 0;
    for (struct slot *slot = self->dropped; slot; slot = slot->next)
        waiting += slot->n;
    return PyLong_FromUnsignedLongLong(self->leaked + waiting);
}

static PyObject *port_closed(PyObject *object, void *unused)
{
    return PyBool_FromLong(((Port *)object)->closed);
}

static int port_init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    Port *self = (Port *)object;
    PyObject *ops, *port, *owner;
    int burst = 64;
    static char *names[] = {"ops", "port", "owner", "burst", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOO|i", names, &ops, &port, &owner,
                                     &burst))
        return -1;
    if (self->ops) {
        PyErr_SetString(PyExc_RuntimeError, "a port is opened once");
        return -1;
    }
    if (burst < 1 || burst > MAX_BURST) {
        PyErr_Format(PyExc_ValueError, "burst=%d: must be 1 to %d", burst, MAX_BURST);
        return -1;
    }
    const struct dpb_port_ops *table = PyLong_AsVoidPtr(ops);
    void *native = PyLong_AsVoidPtr(port);
    if (PyErr_Occurred())
        return -1;
    if (!table || table->abi != DPB_PORT_ABI || table->size < sizeof *table) {
        PyErr_Format(PyExc_ValueError, "not the function table of a port (ABI %d)", DPB_PORT_ABI);
        return -1;
    }
    if (!(self->empty = (PyObject *)burst_new(NULL, NULL)))
        return -1;
    self->port = native;
    self->owner = Py_NewRef(owner);
    self->burst = burst;
    self->ops = table;
    return 0;
}

static void port_dealloc(PyObject *object)
{
    Port *self = (Port *)object;
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

static PyMethodDef port_methods[] = {
    {"poll", port_poll, METH_NOARGS, NULL},
    {"send", port_send, METH_O, NULL},
    {"flush", port_flush, METH_NOARGS, NULL},
    {"ref", port_ref, METH_NOARGS, NULL},
    {"_end", port_end, METH_NOARGS, NULL},
    {0},
};

static PyGetSetDef port_getset[] = {
    {"leaked", port_leaked, NULL, NULL, NULL},
    {"closed", port_closed, NULL, NULL, NULL},
    {0},
};

static PyType_Slot port_slots[] = {
    {Py_tp_doc, "Frames in, frames out; belongs to one thread."},
    {Py_tp_init, port_init},
    {Py_tp_dealloc, port_dealloc},
    {Py_tp_methods, port_methods},
    {Py_tp_getset, port_getset},
    {0},
};

static PyType_Spec port_spec = {
    .name = "dpdk_bindings._port.NativePort",
    .basicsize = sizeof(Port),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = port_slots,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "dpdk_bindings._port", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__port(void)
{
    PyObject *self = PyModule_Create(&module);
    PyObject *errors = PyImport_ImportModule("dpdk_bindings.errors");
    PyObject *burst = PyType_FromSpec(&burst_spec), *port = PyType_FromSpec(&port_spec);
    if (errors) {
        released_error = PyObject_GetAttrString(errors, "Released");
        bindings_error = PyObject_GetAttrString(errors, "BindingsError");
        Py_DECREF(errors);
    }
    if (!self || !burst || !port || !released_error || !bindings_error ||
        PyModule_AddObjectRef(self, "Burst", burst) < 0 ||
        PyModule_AddObjectRef(self, "NativePort", port) < 0) {
        Py_XDECREF(self);
        return NULL;
    }
    burst_type = (PyTypeObject *)burst;
    Py_DECREF(port);
    return self;
}
