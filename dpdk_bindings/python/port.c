/* Port and Burst as Python objects; burst.h keeps the rules of ownership and says why this is not
 * cffi. The module knows ports only by their function table (dpdk_bindings/port.h) and links with
 * no backend. */
#include "dpdk_bindings/port.h"

#define BURST_ITEM struct dpb_frame
#define BURST_OPS struct dpb_port_ops
#define BURST_TAKE poll
#define BURST_NOUN "frame"
#define BURST_SOURCE "port"
#include "burst.h"

/* ---- Burst ---- */

static PyObject *burst_flow(PyObject *object, PyObject *index)
{
    struct dpb_frame *frame = item_of(object, index);
    return frame ? PyLong_FromLong(frame->flow) : NULL;
}

static PyObject *burst_queue(PyObject *object, PyObject *index)
{
    struct dpb_frame *frame = item_of(object, index);
    return frame ? PyLong_FromLong(frame->queue) : NULL;
}

static PyObject *burst_flags(PyObject *object, PyObject *index)
{
    struct dpb_frame *frame = item_of(object, index);
    return frame ? PyLong_FromLong(frame->flags) : NULL;
}

static PyMethodDef burst_methods[] = {
    BURST_METHODS,
    {"flow", burst_flow, METH_O, NULL},
    {"queue", burst_queue, METH_O, NULL},
    {"flags", burst_flags, METH_O, NULL},
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

static PyObject *port_send(PyObject *object, PyObject *frame)
{
    Source *self = (Source *)object;
    Py_buffer bytes;
    if (!source_usable(self) || bytes_to_send(frame, &bytes, "frame") < 0)
        return NULL;
    return source_fill(self, self->ops->reserve(self->native, (uint32_t)bytes.len), &bytes);
}

static PyObject *port_flush(PyObject *object, PyObject *unused)
{
    Source *self = (Source *)object;
    if (!source_usable(self))
        return NULL;
    int result = self->ops->flush(self->native);
    if (result < 0 && result != -EAGAIN)
        return raise_errno(-result);
    return PyBool_FromLong(result == 0);
}

static PyObject *port_ref(PyObject *object, PyObject *unused)
{
    Source *self = (Source *)object;
    if (!source_usable(self))
        return NULL;
    return Py_BuildValue("(NN)", PyLong_FromVoidPtr((void *)self->ops),
                         PyLong_FromVoidPtr(self->native));
}

static int port_init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    PyObject *ops, *port, *owner;
    int burst = 64;
    static char *names[] = {"ops", "port", "owner", "burst", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOO|i", names, &ops, &port, &owner,
                                     &burst))
        return -1;
    const struct dpb_port_ops *table = PyLong_AsVoidPtr(ops);
    void *native = PyLong_AsVoidPtr(port);
    if (PyErr_Occurred())
        return -1;
    return source_open((Source *)object, table, DPB_PORT_ABI, native, owner, burst);
}

static PyMethodDef port_methods[] = {
    {"poll", source_take, METH_NOARGS, NULL},
    {"send", port_send, METH_O, NULL},
    {"flush", port_flush, METH_NOARGS, NULL},
    {"ref", port_ref, METH_NOARGS, NULL},
    {"_end", source_end, METH_NOARGS, NULL},
    {0},
};

static PyType_Slot port_slots[] = {
    {Py_tp_doc, "Frames in, frames out; belongs to one thread."},
    {Py_tp_init, port_init},
    {Py_tp_dealloc, source_dealloc},
    {Py_tp_methods, port_methods},
    {Py_tp_getset, source_getset},
    {0},
};

static PyType_Spec port_spec = {
    .name = "dpdk_bindings._port.NativePort",
    .basicsize = sizeof(Source),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = port_slots,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "dpdk_bindings._port", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__port(void)
{
    return burst_module(&module, &burst_spec, "Burst", &port_spec, "NativePort");
}
