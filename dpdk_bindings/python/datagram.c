/* A datagram endpoint and its bursts as Python objects; burst.h keeps the rules of ownership. The
 * module knows endpoints only by their function table (dpdk_bindings/datagram.h). */
#include "dpdk_bindings/datagram.h"

#define BURST_ITEM struct dpb_datagram
#define BURST_OPS struct dpb_datagram_ops
#define BURST_TAKE recv
#define BURST_NOUN "datagram"
#define BURST_SOURCE "endpoint"
#include "burst.h"

#include <structmember.h>

typedef struct {
    Source source;
    int peers; /* how many were added; written by Python */
} Endpoint;

/* ---- Datagrams ---- */

static PyObject *datagrams_channel(PyObject *object, PyObject *index)
{
    struct dpb_datagram *datagram = item_of(object, index);
    return datagram ? PyLong_FromLong(datagram->channel) : NULL;
}

static PyObject *datagrams_source(PyObject *object, PyObject *index)
{
    struct dpb_datagram *d = item_of(object, index);
    if (!d)
        return NULL;
    return Py_BuildValue("(y#i)", d->source, (Py_ssize_t)(d->family == 4 ? 4 : 16),
                         (int)d->source_port);
}

static PyMethodDef datagrams_methods[] = {
    BURST_METHODS,
    {"channel", datagrams_channel, METH_O, NULL},
    {"source", datagrams_source, METH_O, NULL},
    {0},
};

static PyType_Slot datagrams_slots[] = {
    {Py_tp_doc, "Datagrams borrowed from an endpoint until release()."},
    {Py_tp_dealloc, burst_dealloc},
    {Py_tp_methods, datagrams_methods},
    {Py_tp_getset, burst_getset},
    {Py_sq_length, burst_len},
    {Py_sq_item, burst_item},
    {Py_bf_getbuffer, burst_getbuffer},
    {Py_bf_releasebuffer, burst_releasebuffer},
    {0},
};

static PyType_Spec datagrams_spec = {
    .name = "dpdk_bindings.Datagrams",
    .basicsize = sizeof(Burst),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = datagrams_slots,
};

/* ---- Endpoint ---- */

static PyObject *endpoint_send(PyObject *object, PyObject *const *arguments, Py_ssize_t n)
{
    Source *self = (Source *)object;
    int peers = ((Endpoint *)object)->peers;
    if (!source_usable(self))
        return NULL;
    if (n != 2) {
        PyErr_SetString(PyExc_TypeError, "send() takes a peer's number and a payload");
        return NULL;
    }
    long peer = PyLong_AsLong(arguments[0]);
    if (peer == -1 && PyErr_Occurred())
        return NULL;
    if (peer < 0 || peer >= peers) {
        PyErr_Format(PyExc_ValueError, "there is no peer %ld: %d were added", peer, peers);
        return NULL;
    }
    Py_buffer payload;
    if (bytes_to_send(arguments[1], &payload, "payload") < 0)
        return NULL;
    uint8_t *room = self->ops->reserve(self->native, (int)peer, (uint32_t)payload.len);
    return source_fill(self, room, &payload);
}

static PyObject *endpoint_flush(PyObject *object, PyObject *unused)
{
    Source *self = (Source *)object;
    if (!source_usable(self))
        return NULL;
    int result = self->ops->flush(self->native);
    if (result < 0 && result != -EAGAIN)
        return raise_errno(-result);
    return PyBool_FromLong(result == 0);
}

static PyObject *endpoint_withdraw(PyObject *object, PyObject *unused)
{
    Source *self = (Source *)object;
    if (!source_usable(self))
        return NULL;
    int result = self->ops->withdraw(self->native);
    return result < 0 ? raise_errno(-result) : PyLong_FromLong(result);
}

static int endpoint_init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    unsigned long long ref;
    PyObject *owner;
    int burst = 64;
    static char *names[] = {"ref", "owner", "burst", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "KO|i", names, &ref, &owner, &burst))
        return -1;
    const struct dpb_datagram_ref *native = (const void *)(uintptr_t)ref;
    return source_open((Source *)object, native->ops, DPB_DATAGRAM_ABI, native->endpoint, owner,
                       burst);
}

static PyMethodDef endpoint_methods[] = {
    {"recv", source_take, METH_NOARGS, NULL},
    {"send", (PyCFunction)(void (*)(void))endpoint_send, METH_FASTCALL, NULL},
    {"flush", endpoint_flush, METH_NOARGS, NULL},
    {"withdraw", endpoint_withdraw, METH_NOARGS, NULL},
    {"_end", source_end, METH_NOARGS, NULL},
    {0},
};

static PyMemberDef endpoint_members[] = {
    {"_peers", T_INT, offsetof(Endpoint, peers), 0, NULL},
    {0},
};

static PyType_Slot endpoint_slots[] = {
    {Py_tp_doc, "UDP payloads in, UDP payloads out; belongs to one thread."},
    {Py_tp_init, endpoint_init},
    {Py_tp_dealloc, source_dealloc},
    {Py_tp_methods, endpoint_methods},
    {Py_tp_members, endpoint_members},
    {Py_tp_getset, source_getset},
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
    return burst_module(&module, &datagrams_spec, "Datagrams", &endpoint_spec, "NativeEndpoint");
}
