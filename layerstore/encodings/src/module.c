/* The extension module layerstore.encodings._encoders: a registry of encoders and one Python type that drives them. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pythread.h>

#include <stdlib.h>
#include <string.h>

#include "encoder.h"

/* A new encoder is declared in encoder.h and gets one line here. */
static const encoder_kind *const registry[] = {
    &go_flate_kind,
    &go_flate_127_kind,
    &go_klauspost_1_15_kind,
    &go_klauspost_1_18_1_kind,
    &go_klauspost_1_18_2_kind,
    &go_klauspost_1_20_4_kind,
    &go_fused_flate_127_kind,
    &go_fused_klauspost_1_15_kind,
    &go_fused_klauspost_1_18_1_kind,
    &go_fused_klauspost_1_18_2_kind,
    &go_klauspost_1_15_0_kind,
    &go_klauspost_1_12_kind,
    &zlib_kind,
    &pigz_kind,
    &pigz_one_thread_kind,
    &pigz_independent_kind,
    &gnu_gzip_kind,
};

enum { REGISTRY_SIZE = sizeof registry / sizeof registry[0] };

uint8_t *sink_reserve(sink *out, size_t size) {
    if (out->capacity - out->size < size) {
        size_t capacity = out->capacity < 4096 ? 4096 : out->capacity;
        if (size > SIZE_MAX / 4 || out->size > SIZE_MAX / 4)
            return NULL;
        while (capacity < out->size + size)
            capacity += capacity / 2;
        uint8_t *data = realloc(out->data, capacity);
        if (data == NULL)
            return NULL;
        out->data = data;
        out->capacity = capacity;
    }
    return out->data + out->size;
}

int sink_append(sink *out, const uint8_t *data, size_t size) {
    uint8_t *place = sink_reserve(out, size);
    if (place == NULL)
        return -1;
    if (size != 0)
        memcpy(place, data, size);
    out->size += size;
    return 0;
}

typedef struct {
    PyObject_HEAD
    const encoder_kind *kind;
    encoder *state;
    PyThread_type_lock lock; /* taken while the GIL is released: two threads may not feed one stream at once */
} encoder_object;

static const encoder_kind *find_kind(long long number) {
    for (size_t i = 0; i < REGISTRY_SIZE; i++)
        if (registry[i]->number == number)
            return registry[i];
    return NULL;
}

static PyObject *encoder_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"number", "level", "block_size", NULL};
    long long number, block_size = 0;
    int level;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "Li|L:Encoder", names, &number, &level, &block_size))
        return NULL;
    const encoder_kind *kind = find_kind(number);
    if (kind == NULL)
        return PyErr_Format(PyExc_LookupError, "there is no encoder number %lld", number);
    if (level < kind->level_min || level > kind->level_max)
        return PyErr_Format(PyExc_ValueError, "%s has no level %d", kind->name, level);
    if (block_size != 0 && (block_size < kind->block_size_min || block_size > kind->block_size_max))
        return PyErr_Format(PyExc_ValueError, "%s has no blocks of %lld bytes", kind->name, block_size);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    encoder_object *self = (encoder_object *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->kind = kind;
    self->lock = PyThread_allocate_lock();
    self->state = self->lock == NULL ? NULL : kind->create(level, (uint32_t)block_size);
    if (self->state == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void encoder_dealloc(PyObject *object) {
    encoder_object *self = (encoder_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->state != NULL)
        self->kind->destroy(self->state);
    if (self->lock != NULL)
        PyThread_free_lock(self->lock);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* Feed the stream. A finished or failed stream loses its state, and with it its memory. */
static PyObject *feed(encoder_object *self, const uint8_t *data, size_t size, int flush) {
    if (!PyThread_acquire_lock(self->lock, NOWAIT_LOCK)) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is using this encoder");
        return NULL;
    }
    if (self->state == NULL) {
        PyThread_release_lock(self->lock);
        PyErr_SetString(PyExc_ValueError, "this stream is finished");
        return NULL;
    }
    sink out = {NULL, 0, 0};
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = self->kind->write(self->state, data, size, flush, &out);
    if (failed || flush == ENCODER_FINISH) {
        self->kind->destroy(self->state);
        self->state = NULL;
    }
    Py_END_ALLOW_THREADS
    PyThread_release_lock(self->lock);
    PyObject *result = failed ? PyErr_NoMemory() : PyBytes_FromStringAndSize((const char *)out.data, (Py_ssize_t)out.size);
    free(out.data);
    return result;
}

static PyObject *encoder_write(PyObject *object, PyObject *source) {
    Py_buffer view;
    if (PyObject_GetBuffer(source, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *result = feed((encoder_object *)object, view.buf, (size_t)view.len, ENCODER_NO_FLUSH);
    PyBuffer_Release(&view);
    return result;
}

static PyObject *encoder_flush(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    return feed((encoder_object *)object, (const uint8_t *)"", 0, ENCODER_SYNC_FLUSH);
}

static PyObject *encoder_finish(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    return feed((encoder_object *)object, (const uint8_t *)"", 0, ENCODER_FINISH);
}

static PyMethodDef encoder_methods[] = {
    {"write", encoder_write, METH_O, "Compress bytes and return what came out."},
    {"flush", encoder_flush, METH_NOARGS, "End on a byte boundary (a sync flush) and return what came out."},
    {"finish", encoder_finish, METH_NOARGS, "End the stream and return its last bytes."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot encoder_slots[] = {
    {Py_tp_new, encoder_new},
    {Py_tp_dealloc, encoder_dealloc},
    {Py_tp_methods, encoder_methods},
    {Py_tp_doc, "One raw DEFLATE stream, bit for bit as the tool with this number makes it."},
    {0, NULL},
};

static PyType_Spec encoder_spec = {
    "layerstore.encodings._encoders.Encoder", sizeof(encoder_object), 0, Py_TPFLAGS_DEFAULT, encoder_slots,
};

static PyObject *numbers(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    PyObject *result = PyTuple_New(REGISTRY_SIZE);
    for (Py_ssize_t i = 0; result != NULL && i < REGISTRY_SIZE; i++) {
        PyObject *number = PyLong_FromUnsignedLong(registry[i]->number);
        if (number == NULL || PyTuple_SetItem(result, i, number) < 0)
            Py_CLEAR(result);
    }
    return result;
}

static PyMethodDef module_methods[] = {
    {"numbers", numbers, METH_NOARGS, "The numbers of the encoders in this build."},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &encoder_spec, NULL);
    int failed = type == NULL ? -1 : PyModule_AddObjectRef(module, "Encoder", type);
    Py_XDECREF(type);
    return failed;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "_encoders", "Encoders that reproduce other tools' DEFLATE streams.", 0, module_methods,
    module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__encoders(void) { return PyModuleDef_Init(&module_definition); }
