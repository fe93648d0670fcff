/* A stream endpoint and its connections as Python objects: one native call each, nothing allocated.
 *
 * What the network does is not raised: recv_into() says -1 when no more will come, and the state
 * says why. What the caller does wrong is.
 *
 * The module knows endpoints only by their function table (dpdk_bindings/stream.h). */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <structmember.h>

#include "dpdk_bindings/stream.h"

#include <errno.h>
#include <stdbool.h>

typedef struct {
    PyObject_HEAD
    const struct dpb_stream_ops *ops;
    void *endpoint; /* NULL once closed */
    PyObject *owner;
} Streams;

typedef struct {
    PyObject_HEAD
    const struct dpb_stream_ops *ops;
    struct dpb_stream *stream; /* NULL once closed */
    struct dpb_stream last;    /* what it was then */
    PyObject *owner;
} Stream;

static PyObject *bindings_error;

/* ---- Stream ---- */

static const struct dpb_stream *face(Stream *self)
{
    return self->stream ? self->stream : &self->last;
}

static struct dpb_stream *open_stream(Stream *self)
{
    if (!self->stream)
        PyErr_SetString(bindings_error, "this connection was closed");
    return self->stream;
}

/* -1 with OverflowError or ValueError set: not an offset into `len` bytes. */
static Py_ssize_t offset_of(PyObject *number, Py_ssize_t len)
{
    Py_ssize_t offset = PyNumber_AsSsize_t(number, PyExc_OverflowError);
    if (offset == -1 && PyErr_Occurred())
        return -1;
    if (offset < 0 || offset > len) {
        PyErr_Format(PyExc_ValueError, "offset %zd of a buffer of %zd bytes", offset, len);
        return -1;
    }
    return offset;
}

static PyObject *stream_recv_into(PyObject *object, PyObject *const *arguments, Py_ssize_t n)
{
    Stream *self = (Stream *)object;
    struct dpb_stream *stream = open_stream(self);
    if (!stream)
        return NULL;
    if (n != 1 && n != 2) {
        PyErr_SetString(PyExc_TypeError, "recv_into() takes a buffer, and perhaps an offset");
        return NULL;
    }
    Py_buffer into;
    if (PyObject_GetBuffer(arguments[0], &into, PyBUF_WRITABLE) < 0)
        return NULL;
    Py_ssize_t offset = n == 2 ? offset_of(arguments[1], into.len) : 0;
    Py_ssize_t room = into.len - offset;
    if (offset >= 0 && room == 0)
        PyErr_SetString(PyExc_ValueError, "no room in the buffer behind the offset");
    int got = 0;
    if (offset >= 0 && room > 0)
        got = self->ops->recv(stream, (char *)into.buf + offset,
                              room > INT32_MAX ? INT32_MAX : (uint32_t)room);
    PyBuffer_Release(&into);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromLong(got > 0 ? got : got == -EAGAIN ? 0 : -1);
}

static PyObject *stream_send(PyObject *object, PyObject *const *arguments, Py_ssize_t n)
{
    Stream *self = (Stream *)object;
    struct dpb_stream *stream = open_stream(self);
    if (!stream)
        return NULL;
    if (n != 1 && n != 2) {
        PyErr_SetString(PyExc_TypeError, "send() takes bytes, and perhaps an offset");
        return NULL;
    }
    Py_buffer bytes;
    if (PyObject_GetBuffer(arguments[0], &bytes, PyBUF_SIMPLE) < 0)
        return NULL;
    Py_ssize_t offset = n == 2 ? offset_of(arguments[1], bytes.len) : 0;
    Py_ssize_t left = bytes.len - offset;
    int took = 0;
    if (offset >= 0 && left > 0)
        took = self->ops->send(stream, (const char *)bytes.buf + offset,
                               left > INT32_MAX ? INT32_MAX : (uint32_t)left);
    PyBuffer_Release(&bytes);
    if (PyErr_Occurred())
        return NULL;
    if (took == -EPIPE && stream->shut) {
        PyErr_SetString(bindings_error, "send() after shutdown(): this side has ended");
        return NULL;
    }
    return PyLong_FromLong(took >= 0 ? took : took == -EAGAIN ? 0 : -1);
}

static PyObject *stream_shutdown(PyObject *object, PyObject *unused)
{
    Stream *self = (Stream *)object;
    struct dpb_stream *stream = open_stream(self);
    if (!stream)
        return NULL;
    return PyBool_FromLong(self->ops->shutdown(stream) == 0);
}

static PyObject *stream_end(PyObject *object, PyObject *unused)
{
    Stream *self = (Stream *)object;
    if (self->stream)
        self->last = *self->stream;
    self->last.readable = 0;
    self->stream = NULL;
    Py_RETURN_NONE;
}

#define NUMBER(name) \
    static PyObject *stream_##name(PyObject *object, void *unused) \
    { \
        return PyLong_FromUnsignedLongLong(face((Stream *)object)->name); \
    }
NUMBER(arrival_ns)
NUMBER(rx_bytes)
NUMBER(tx_bytes)
NUMBER(readable)
NUMBER(clock)
NUMBER(state)

static PyObject *stream_error(PyObject *object, void *unused)
{
    return PyLong_FromLong(face((Stream *)object)->error);
}

static PyObject *stream_closed(PyObject *object, void *unused)
{
    return PyBool_FromLong(!((Stream *)object)->stream);
}

static PyObject *stream_address(PyObject *object, void *unused)
{
    struct dpb_stream *stream = open_stream((Stream *)object);
    return stream ? PyLong_FromVoidPtr(stream) : NULL;
}

static int stream_init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    Stream *self = (Stream *)object;
    unsigned long long ref, stream;
    PyObject *owner;
    static char *names[] = {"ref", "stream", "owner", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "KKO", names, &ref, &stream, &owner))
        return -1;
    if (self->owner) {
        PyErr_SetString(PyExc_RuntimeError, "a connection is opened once");
        return -1;
    }
    self->ops = ((const struct dpb_stream_ref *)(uintptr_t)ref)->ops;
    self->stream = (struct dpb_stream *)(uintptr_t)stream;
    self->owner = Py_NewRef(owner);
    return 0;
}

static void stream_dealloc(PyObject *object)
{
    Py_XDECREF(((Stream *)object)->owner);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyMethodDef stream_methods[] = {
    {"recv_into", (PyCFunction)(void (*)(void))stream_recv_into, METH_FASTCALL, NULL},
    {"send", (PyCFunction)(void (*)(void))stream_send, METH_FASTCALL, NULL},
    {"shutdown", stream_shutdown, METH_NOARGS, NULL},
    {"_end", stream_end, METH_NOARGS, NULL},
    {0},
};

static PyGetSetDef stream_getset[] = {
    {"arrival_ns", stream_arrival_ns, NULL, NULL, NULL},
    {"rx_bytes", stream_rx_bytes, NULL, NULL, NULL},
    {"tx_bytes", stream_tx_bytes, NULL, NULL, NULL},
    {"readable", stream_readable, NULL, NULL, NULL},
    {"clock", stream_clock, NULL, NULL, NULL},
    {"_state", stream_state, NULL, NULL, NULL},
    {"error", stream_error, NULL, NULL, NULL},
    {"closed", stream_closed, NULL, NULL, NULL},
    {"address", stream_address, NULL, NULL, NULL},
    {0},
};

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, "One connection: bytes in, bytes out; belongs to its endpoint's thread."},
    {Py_tp_init, stream_init},
    {Py_tp_dealloc, stream_dealloc},
    {Py_tp_methods, stream_methods},
    {Py_tp_getset, stream_getset},
    {0},
};

static PyType_Spec stream_spec = {
    .name = "dpdk_bindings._stream.NativeStream",
    .basicsize = sizeof(Stream),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = stream_slots,
};

/* ---- Streams ---- */

static PyObject *streams_poll(PyObject *object, PyObject *unused)
{
    Streams *self = (Streams *)object;
    if (!self->endpoint) {
        PyErr_SetString(bindings_error, "this endpoint was closed");
        return NULL;
    }
    int n = self->ops->poll(self->endpoint);
    if (n < 0) {
        errno = -n;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(n);
}

static PyObject *streams_end(PyObject *object, PyObject *unused)
{
    ((Streams *)object)->endpoint = NULL;
    Py_RETURN_NONE;
}

static PyObject *streams_closed(PyObject *object, void *unused)
{
    return PyBool_FromLong(!((Streams *)object)->endpoint);
}

static int streams_init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    Streams *self = (Streams *)object;
    unsigned long long ref;
    PyObject *owner;
    static char *names[] = {"ref", "owner", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "KO", names, &ref, &owner))
        return -1;
    if (self->owner) {
        PyErr_SetString(PyExc_RuntimeError, "an endpoint is opened once");
        return -1;
    }
    const struct dpb_stream_ref *native = (const void *)(uintptr_t)ref;
    if (native->ops->abi != DPB_STREAM_ABI || native->ops->size < sizeof *native->ops) {
        PyErr_Format(PyExc_ValueError, "not the function table of a stream endpoint (ABI %d)",
                     DPB_STREAM_ABI);
        return -1;
    }
    self->ops = native->ops;
    self->endpoint = native->endpoint;
    self->owner = Py_NewRef(owner);
    return 0;
}

static void streams_dealloc(PyObject *object)
{
    Py_XDECREF(((Streams *)object)->owner);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyMethodDef streams_methods[] = {
    {"poll", streams_poll, METH_NOARGS, NULL},
    {"_end", streams_end, METH_NOARGS, NULL},
    {0},
};

static PyGetSetDef streams_getset[] = {
    {"closed", streams_closed, NULL, NULL, NULL},
    {0},
};

static PyType_Slot streams_slots[] = {
    {Py_tp_doc, "Byte streams; belongs to one thread."},
    {Py_tp_init, streams_init},
    {Py_tp_dealloc, streams_dealloc},
    {Py_tp_methods, streams_methods},
    {Py_tp_getset, streams_getset},
    {0},
};

static PyType_Spec streams_spec = {
    .name = "dpdk_bindings._stream.NativeStreams",
    .basicsize = sizeof(Streams),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = streams_slots,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "dpdk_bindings._stream", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__stream(void)
{
    PyObject *errors = PyImport_ImportModule("dpdk_bindings.errors");
    if (!errors)
        return NULL;
    bindings_error = PyObject_GetAttrString(errors, "BindingsError");
    Py_DECREF(errors);
    PyObject *self = PyModule_Create(&module);
    PyObject *stream = PyType_FromSpec(&stream_spec), *streams = PyType_FromSpec(&streams_spec);
    if (!bindings_error || !self || !stream || !streams ||
        PyModule_AddObjectRef(self, "NativeStream", stream) < 0 ||
        PyModule_AddObjectRef(self, "NativeStreams", streams) < 0) {
        Py_XDECREF(self);
        return NULL;
    }
    Py_DECREF(stream);
    Py_DECREF(streams);
    return self;
}
