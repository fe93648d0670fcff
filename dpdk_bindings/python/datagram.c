/* A datagram endpoint and its bursts as Python objects, under the rules of a Port and its Bursts
 * (python/port.c, which says why this is not cffi): a view of a payload, and every slice of it,
 * holds an export of its burst; a burst is not released while one lives, and gives out none after.
 * A burst that is dropped is counted and given back by the next recv(), in the endpoint's thread.
 *
 * The module knows endpoints only by their function table (dpdk_bindings/datagram.h). */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <structmember.h>

#include "dpdk_bindings/datagram.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BURST 4096

/* A descriptor array: spare, with a burst, or dropped by one. */
struct slot {
    struct slot *next;
    int n;
    struct dpb_datagram datagrams[];
};

typedef struct {
    PyObject_HEAD
    const struct dpb_datagram_ops *ops; /* NULL until opened */
    void *endpoint;
    PyObject *owner; /* keeps alive the memory that payloads lie in */
    PyObject *empty; /* what recv() gives when nothing came */
    struct slot *spare, *dropped;
    int burst;
    int peers; /* how many were added; written by Python */
    bool closed;
    unsigned long long leaked;
} Endpoint;

typedef struct {
    PyObject_HEAD
    Endpoint *endpoint;   /* NULL: the empty burst */
    struct slot *slot;    /* NULL once released */
    Py_ssize_t exports;   /* live views, slices included */
    Py_ssize_t exporting; /* the payload that the view being made is of, or -1: descriptors */
} Datagrams;

static PyTypeObject *datagrams_type;
static PyObject *released_error, *bindings_error;

/* ---- Datagrams ---- */

static bool borrowed(Datagrams *self)
{
    if (self->slot || !self->endpoint)
        return true;
    PyErr_SetString(released_error, "this burst was released; its memory belongs to the endpoint");
    return false;
}

static Py_ssize_t datagrams_len(PyObject *object)
{
    Datagrams *self = (Datagrams *)object;
    if (!borrowed(self))
        return -1;
    return self->slot ? self->slot->n : 0;
}

static struct dpb_datagram *datagram_at(Datagrams *self, Py_ssize_t index)
{
    Py_ssize_t n = datagrams_len((PyObject *)self);
    if (n < 0)
        return NULL;
    if (index < 0 || index >= n) {
        PyErr_Format(PyExc_IndexError, "datagram %zd of a burst of %zd", index, n);
        return NULL;
    }
    return &self->slot->datagrams[index];
}

static struct dpb_datagram *datagram_of(PyObject *object, PyObject *index)
{
    Py_ssize_t i = PyNumber_AsSsize_t(index, PyExc_IndexError);
    return i == -1 && PyErr_Occurred() ? NULL : datagram_at((Datagrams *)object, i);
}

static int datagrams_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    Datagrams *self = (Datagrams *)object;
    Py_ssize_t which = self->exporting;
    self->exporting = -1;
    view->obj = NULL;
    if (!borrowed(self))
        return -1;
    static char nothing;
    void *bytes = &nothing;
    Py_ssize_t size = 0;
    if (self->slot && which >= 0) {
        bytes = (void *)self->slot->datagrams[which].data;
        size = self->slot->datagrams[which].len;
    } else if (self->slot) {
        bytes = self->slot->datagrams;
        size = self->slot->n * (Py_ssize_t)sizeof(struct dpb_datagram);
    }
    if (PyBuffer_FillInfo(view, object, bytes, size, 1, flags) < 0)
        return -1;
    self->exports++;
    return 0;
}

static void datagrams_releasebuffer(PyObject *object, Py_buffer *view)
{
    ((Datagrams *)object)->exports--;
}

static PyObject *datagrams_item(PyObject *object, Py_ssize_t index)
{
    Datagrams *self = (Datagrams *)object;
    if (!datagram_at(self, index))
        return NULL;
    self->exporting = index; /* read at once by datagrams_getbuffer */
    PyObject *view = PyMemoryView_FromObject(object);
    self->exporting = -1;
    return view;
}

static void give_back(Endpoint *endpoint, struct slot *slot)
{
    endpoint->ops->release(endpoint->endpoint, slot->datagrams, slot->n);
    slot->next = endpoint->spare;
    endpoint->spare = slot;
}

static PyObject *datagrams_release(PyObject *object, PyObject *unused)
{
    Datagrams *self = (Datagrams *)object;
    if (!self->endpoint)
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
    give_back(self->endpoint, slot);
    Py_RETURN_NONE;
}

static PyObject *datagrams_enter(PyObject *object, PyObject *unused)
{
    return borrowed((Datagrams *)object) ? Py_NewRef(object) : NULL;
}

static PyObject *datagrams_exit(PyObject *object, PyObject *arguments)
{
    Datagrams *self = (Datagrams *)object;
    PyObject *kind = PyTuple_GetItem(arguments, 0);
    if (!kind)
        return NULL;
    /* The traceback of a travelling exception may hold views: then the burst counts as dropped
     * once they are gone. */
    if (!self->slot || (kind != Py_None && self->exports))
        Py_RETURN_NONE;
    return datagrams_release(object, NULL);
}

static PyObject *datagrams_channel(PyObject *object, PyObject *index)
{
    struct dpb_datagram *datagram = datagram_of(object, index);
    return datagram ? PyLong_FromLong(datagram->channel) : NULL;
}
static PyObject *datagrams_arrival_ns(PyObject *object, PyObject *index)
{
    struct dpb_datagram *datagram = datagram_of(object, index);
    return datagram ? PyLong_FromUnsignedLongLong(datagram->arrival_ns) : NULL;
}
static PyObject *datagrams_clock(PyObject *object, PyObject *index)
{
    struct dpb_datagram *datagram = datagram_of(object, index);
    return datagram ? PyLong_FromLong(datagram->clock) : NULL;
}
static PyObject *datagrams_source(PyObject *object, PyObject *index)
{
    struct dpb_datagram *d = datagram_of(object, index);
    if (!d)
        return NULL;
    return Py_BuildValue("(y#i)", d->source, (Py_ssize_t)(d->family == 4 ? 4 : 16),
                         (int)d->source_port);
}

static PyObject *datagrams_address(PyObject *object, void *unused)
{
    Datagrams *self = (Datagrams *)object;
    return borrowed(self) ? PyLong_FromVoidPtr(self->slot ? self->slot->datagrams : NULL) : NULL;
}
static PyObject *datagrams_released(PyObject *object, void *unused)
{
    Datagrams *self = (Datagrams *)object;
    return PyBool_FromLong(self->endpoint && !self->slot);
}

static void datagrams_dealloc(PyObject *object)
{
    Datagrams *self = (Datagrams *)object;
    if (self->slot) {
        self->slot->next = self->endpoint->dropped;
        self->endpoint->dropped = self->slot;
    }
    Py_XDECREF((PyObject *)self->endpoint);
    PyTypeObject *type = Py_TYPE(object);
    PyObject_Free(object);
    Py_DECREF(type);
}

static Datagrams *datagrams_new(Endpoint *endpoint, struct slot *slot)
{
    Datagrams *burst = PyObject_New(Datagrams, datagrams_type);
    if (!burst)
        return NULL;
    burst->endpoint = endpoint;
    Py_XINCREF((PyObject *)endpoint);
    burst->slot = slot;
    burst->exports = 0;
    burst->exporting = -1;
    return burst;
}

static PyMethodDef datagrams_methods[] = {
    {"release", datagrams_release, METH_NOARGS, NULL},
    {"channel", datagrams_channel, METH_O, NULL},
    {"arrival_ns", datagrams_arrival_ns, METH_O, NULL},
    {"clock", datagrams_clock, METH_O, NULL},
    {"source", datagrams_source, METH_O, NULL},
    {"__enter__", datagrams_enter, METH_NOARGS, NULL},
    {"__exit__", datagrams_exit, METH_VARARGS, NULL},
    {0},
};

static PyGetSetDef datagrams_getset[] = {
    {"address", datagrams_address, NULL, NULL, NULL},
    {"released", datagrams_released, NULL, NULL, NULL},
    {0},
};

static PyType_Slot datagrams_slots[] = {
    {Py_tp_doc, "Datagrams borrowed from an endpoint until release()."},
    {Py_tp_dealloc, datagrams_dealloc},
    {Py_tp_methods, datagrams_methods},
    {Py_tp_getset, datagrams_getset},
    {Py_sq_length, datagrams_len},
    {Py_sq_item, datagrams_item},
    {Py_bf_getbuffer, datagrams_getbuffer},
    {Py_bf_releasebuffer, datagrams_releasebuffer},
    {0},
};

static PyType_Spec datagrams_spec = {
    .name = "dpdk_bindings.Datagrams",
    .basicsize = sizeof(Datagrams),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = datagrams_slots,
};

/* ---- Endpoint ---- */

static bool open_for_use(Endpoint *self)
{
    if (self->ops && !self->closed)
        return true;
    PyErr_SetString(bindings_error,
                    self->ops ? "this endpoint was closed" : "this endpoint was never opened");
    return false;
}

static PyObject *raise_errno(int code)
{
    errno = code;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static void collect_dropped(Endpoint *self)
{
    struct slot *slot;
    while ((slot = self->dropped)) {
        self->dropped = slot->next;
        self->leaked += (unsigned long long)slot->n;
        give_back(self, slot);
    }
}

static PyObject *endpoint_recv(PyObject *object, PyObject *unused)
{
    Endpoint *self = (Endpoint *)object;
    if (!open_for_use(self))
        return NULL;
    if (self->dropped)
        collect_dropped(self);
    struct slot *slot = self->spare;
    if (!slot) {
        slot = malloc(sizeof *slot + (size_t)self->burst * sizeof *slot->datagrams);
        if (!slot)
            return PyErr_NoMemory();
        slot->next = NULL;
        self->spare = slot;
    }
    int n = self->ops->recv(self->endpoint, slot->datagrams, self->burst);
    if (n == 0)
        return Py_NewRef(self->empty);
    if (n < 0)
        return raise_errno(-n);
    slot->n = n;
    Datagrams *burst = datagrams_new(self, slot);
    if (!burst) {
        self->ops->release(self->endpoint, slot->datagrams, n);
        return NULL;
    }
    self->spare = slot->next;
    return (PyObject *)burst;
}

static PyObject *endpoint_send(PyObject *object, PyObject *const *arguments, Py_ssize_t n)
{
    Endpoint *self = (Endpoint *)object;
    if (!open_for_use(self))
        return NULL;
    if (n != 2) {
        PyErr_SetString(PyExc_TypeError, "send() takes a peer's number and a payload");
        return NULL;
    }
    long peer = PyLong_AsLong(arguments[0]);
    if (peer == -1 && PyErr_Occurred())
        return NULL;
    if (peer < 0 || peer >= self->peers) {
        PyErr_Format(PyExc_ValueError, "there is no peer %ld: %d were added", peer, self->peers);
        return NULL;
    }
    Py_buffer payload;
    if (PyObject_GetBuffer(arguments[1], &payload, PyBUF_SIMPLE) < 0)
        return NULL;
    if (payload.len == 0 || payload.len > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "a payload of %zd bytes cannot be sent", payload.len);
        PyBuffer_Release(&payload);
        return NULL;
    }
    uint32_t len = (uint32_t)payload.len;
    uint8_t *room = self->ops->reserve(self->endpoint, (int)peer, len);
    int result = 0;
    if (room) {
        memcpy(room, payload.buf, len);
        result = self->ops->commit(self->endpoint, len);
    }
    PyBuffer_Release(&payload);
    return result < 0 ? raise_errno(-result) : PyBool_FromLong(room != NULL);
}

static PyObject *endpoint_flush(PyObject *object, PyObject *unused)
{
    Endpoint *self = (Endpoint *)object;
    if (!open_for_use(self))
        return NULL;
    int result = self->ops->flush(self->endpoint);
    if (result < 0 && result != -EAGAIN)
        return raise_errno(-result);
    return PyBool_FromLong(result == 0);
}

static PyObject *endpoint_end(PyObject *object, PyObject *unused)
{
    Endpoint *self = (Endpoint *)object;
    if (self->ops && !self->closed)
        collect_dropped(self);
    self->closed = true;
    Py_RETURN_NONE;
}

static PyObject *endpoint_leaked(PyObject *object, void *unused)
{
    Endpoint *self = (Endpoint *)object;
    unsigned long long leaked = self->leaked;
    for (struct slot *slot = self->dropped; slot; slot = slot->next)
        leaked += (unsigned long long)slot->n;
    return PyLong_FromUnsignedLongLong(leaked);
}

static PyObject *endpoint_closed(PyObject *object, void *unused)
{
    return PyBool_FromLong(((Endpoint *)object)->closed);
}

static int endpoint_init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    Endpoint *self = (Endpoint *)object;
    unsigned long long ref;
    PyObject *owner;
    int burst = 64;
    static char *names[] = {"ref", "owner", "burst", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "KO|i", names, &ref, &owner, &burst))
        return -1;
    if (self->ops) {
        PyErr_SetString(PyExc_RuntimeError, "an endpoint is opened once");
        return -1;
    }
    if (burst < 1 || burst > MAX_BURST) {
        PyErr_Format(PyExc_ValueError, "burst=%d: must be 1 to %d", burst, MAX_BURST);
        return -1;
    }
    const struct dpb_datagram_ref *native = (const void *)(uintptr_t)ref;
    if (native->ops->abi != DPB_DATAGRAM_ABI || native->ops->size < sizeof *native->ops) {
        PyErr_Format(PyExc_ValueError, "not the function table of an endpoint (ABI %d)",
                     DPB_DATAGRAM_ABI);
        return -1;
    }
    if (!(self->empty = (PyObject *)datagrams_new(NULL, NULL)))
        return -1;
    self->endpoint = native->endpoint;
    self->owner = Py_NewRef(owner);
    self->burst = burst;
    self->ops = native->ops;
    return 0;
}

static void endpoint_dealloc(PyObject *object)
{
    Endpoint *self = (Endpoint *)object;
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

static PyMethodDef endpoint_methods[] = {
    {"recv", endpoint_recv, METH_NOARGS, NULL},
    {"send", (PyCFunction)(void (*)(void))endpoint_send, METH_FASTCALL, NULL},
    {"flush", endpoint_flush, METH_NOARGS, NULL},
    {"_end", endpoint_end, METH_NOARGS, NULL},
    {0},
};

static PyMemberDef endpoint_members[] = {
    {"_peers", T_INT, offsetof(Endpoint, peers), 0, NULL},
    {0},
};

static PyGetSetDef endpoint_getset[] = {
    {"leaked", endpoint_leaked, NULL, NULL, NULL},
    {"closed", endpoint_closed, NULL, NULL, NULL},
    {0},
};

static PyType_Slot endpoint_slots[] = {
    {Py_tp_doc, "UDP payloads in, UDP payloads out; belongs to one thread."},
    {Py_tp_init, endpoint_init},
    {Py_tp_dealloc, endpoint_dealloc},
    {Py_tp_methods, endpoint_methods},
    {Py_tp_members, endpoint_members},
    {Py_tp_getset, endpoint_getset},
    {0},
};

static PyType_Spec endpoint_spec = {
    .name = "dpdk_bindings._datagram.NativeEndpoint",
    .basicsize = sizeof(Endpoint),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = endpoint_slots,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "dpdk_bindings._datagram", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__datagram(void)
{
    PyObject *errors = PyImport_ImportModule("dpdk_bindings.errors");
    if (!errors)
        return NULL;
    released_error = PyObject_GetAttrString(errors, "Released");
    bindings_error = PyObject_GetAttrString(errors, "BindingsError");
    Py_DECREF(errors);
    PyObject *self = PyModule_Create(&module);
    PyObject *burst = PyType_FromSpec(&datagrams_spec);
    PyObject *endpoint = PyType_FromSpec(&endpoint_spec);
    datagrams_type = (PyTypeObject *)burst;
    if (!released_error || !bindings_error || !self || !burst || !endpoint ||
        PyModule_AddObjectRef(self, "Datagrams", burst) < 0 ||
        PyModule_AddObjectRef(self, "NativeEndpoint", endpoint) < 0) {
        Py_XDECREF(self);
        return NULL;
    }
    Py_DECREF(endpoint);
    return self;
}
