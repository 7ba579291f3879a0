/* The C ABI of the CUDA backend, an object of its own beside the addon (lutra_cuda.so). One symbol, lutra_cuda_open,
 * gives a table of functions; nothing else crosses, and nothing but plain data goes through. Who opens the object needs
 * no CUDA.
 *
 * A table is good for one version only: a struct that changes raises LUTRA_CUDA_ABI_VERSION. Every struct begins with
 * its own size in bytes, which the callee compares with what it was built for.
 *
 * Everything that takes a stream is asynchronous: memory handed to it must live until the stream has passed it. A null
 * stream is the context's first one. Calls into one context come from one thread at a time. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LUTRA_CUDA_ABI_VERSION 2u
#define LUTRA_CUDA_OPEN_NAME "lutra_cuda_open"
#define LUTRA_CUDA_MAX_TOKENS 65536 /* of one product with packed weights */

enum LutraCudaResult {
  LUTRA_CUDA_OK = 0,
  LUTRA_CUDA_NO_DRIVER = 1,
  LUTRA_CUDA_DRIVER_TOO_OLD = 2,
  LUTRA_CUDA_NO_DEVICE = 3,
  LUTRA_CUDA_NO_ARCHITECTURE = 4, /* the object holds no code for this device */
  LUTRA_CUDA_NO_MEMORY = 5,
  LUTRA_CUDA_ARGUMENT = 6, /* refused before anything ran */
  LUTRA_CUDA_FAILED = 7    /* the device or the driver failed; the context is of no use any more */
};

enum LutraCudaOp {
  LUTRA_CUDA_OP_LUT_GEMM = 0,      /* LutraCudaLutGemm */
  LUTRA_CUDA_OP_MATRIX_VECTOR = 1, /* LutraCudaMatrixVector */
  LUTRA_CUDA_OP_ADD = 2,           /* LutraCudaAdd */
  LUTRA_CUDA_OP_TABLE_GEMV = 3,    /* LutraCudaTableGemv */
  LUTRA_CUDA_OP_FRAGMENTS = 4,     /* LutraCudaFragments */
  LUTRA_CUDA_OP_EMBEDDING = 5,     /* LutraCudaEmbedding */
  LUTRA_CUDA_OP_RMS_NORM = 6,      /* LutraCudaRmsNorm */
  LUTRA_CUDA_OP_ROPE = 7,          /* LutraCudaRope */
  LUTRA_CUDA_OP_ATTENTION = 8,     /* LutraCudaAttention */
  LUTRA_CUDA_OP_SWIGLU = 9,        /* LutraCudaSwiglu */
  LUTRA_CUDA_OP_ARG_MAX = 10,      /* LutraCudaArgMax */
  LUTRA_CUDA_OPS = 11
};

typedef struct LutraCudaContext LutraCudaContext;
typedef struct LutraCudaStream LutraCudaStream;
typedef struct LutraCudaEvent LutraCudaEvent;
typedef struct LutraCudaGraph LutraCudaGraph;

typedef struct LutraCudaFacts {
  uint32_t bytes;
  int32_t state;           /* LutraCudaResult of making a context on this device, before anything is allocated */
  int32_t driver_version;  /* 1000 * major + 10 * minor; 0 where there is none */
  int32_t runtime_version; /* that the object was built with */
  int32_t devices;
  int32_t compute_capability; /* 10 * major + minor */
  int32_t multiprocessors;
  int32_t l2_bytes;
  uint64_t memory_bytes;
  uint64_t free_bytes;
  char name[96];
  char built_for[64]; /* for example "80 86 89 90" */
  char detail[160];   /* the driver's own words where the state is not OK */
} LutraCudaFacts;

/* A packed matrix on the device: the layout's numbers as native/packing/layout.h has them, codes in the order of
 * fragments. */
typedef struct LutraCudaMatrix {
  int64_t rows;
  int64_t cols;
  int64_t group_size;
  int32_t bits;
  int32_t kind;
  int32_t offset_kind;
  int32_t scale_dtype;
  int32_t offset_dtype;
  int32_t branch_dtype;
  int64_t branch_rank;
  const void* codes;
  const void* scales;
  const void* offsets;
  const void* branch_a;
  const void* branch_b;
  const float* branch_a_scales;
  const float* branch_b_scales;
} LutraCudaMatrix;

/* y [tokens, rows] = W x, with its sub-branch: in one launch up to 16 tokens (32 parts), in two or three with the
 * matrix unit's tiles full of tokens beyond, up to LUTRA_CUDA_MAX_TOKENS. More parts (of f32 x) mean more bits of x. */
typedef struct LutraCudaLutGemm {
  uint32_t bytes;
  int32_t tokens;
  int32_t parts;
  int32_t x_dtype;
  int32_t y_dtype;
  int32_t reserved;
  LutraCudaMatrix w;
  const void* x;
  void* y;
  void* workspace; /* workspace() bytes, zero before its first use; one launch at a time uses it */
} LutraCudaLutGemm;

/* y [tokens, rows] f32 = scale[row] * sum over k of m [rows, cols] x [tokens, cols]; m f32, f16, bf16 or i8 (which has
 * scales). */
typedef struct LutraCudaMatrixVector {
  uint32_t bytes;
  int32_t tokens;
  int32_t m_dtype;
  int32_t x_dtype;
  int64_t rows;
  int64_t cols;
  const void* m;
  const float* scales;
  const void* x;
  float* y;
} LutraCudaMatrixVector;

/* y[i] += u[i % period], f32: the same of u for every `period` elements of y. */
typedef struct LutraCudaAdd {
  uint32_t bytes;
  int32_t reserved;
  int64_t count;
  int64_t period;
  const float* u;
  float* y;
} LutraCudaAdd;

/* y [rows] f16 += W x for one token through tables in shared memory, as LUT-GEMM was published: codes u32
 * [cols / 32][planes][rows] of -1 and +1, alphas f16 [groups][planes][rows], bias f16 [groups][rows], x f16. rows even,
 * cols and group_size multiples of 64. y must be zero before. The order of its sums, and so its last bits, change from
 * run to run: it is here to be measured against. */
typedef struct LutraCudaTableGemv {
  uint32_t bytes;
  int32_t planes;
  int64_t rows;
  int64_t cols;
  int64_t group_size;
  const uint32_t* codes;
  const void* alphas;
  const void* bias;
  const void* x;
  void* y;
} LutraCudaTableGemv;

/* Words of u32 that codes take in the order of fragments. */
#define LUTRA_CUDA_FRAGMENT_WORDS(rows, cols, bits) (((rows) + 15) / 16 * (((cols) + 127) / 128) * 64 * (bits))

/* Codes in the order of packing/layout.h to the order of fragments (2 to 4 bits). The two do not overlap. */
typedef struct LutraCudaFragments {
  uint32_t bytes;
  int32_t bits;
  int64_t rows;
  int64_t cols;
  const uint32_t* tiles;
  uint32_t* fragments; /* LUTRA_CUDA_FRAGMENT_WORDS of them */
} LutraCudaFragments;

/* What follows is the rest of a model step. Activations are f32, [tokens, width]. `position` is that of the step's
 * first token, in device memory, so that one recorded step serves every position: what it would have read or written
 * past `capacity` it leaves alone. Whoever sets the position keeps position + tokens within the capacity: past it the
 * results mean nothing. */

/* y [tokens, width] = table[ids[token]]; a token outside the table gets NaN. */
typedef struct LutraCudaEmbedding {
  uint32_t bytes;
  int32_t table_dtype; /* f32, f16 or bf16 */
  int64_t tokens;
  int64_t width;
  int64_t table_rows;
  const void* table;
  const int32_t* ids;
  float* y;
} LutraCudaEmbedding;

/* x += added, where there is something to add; then y = x / sqrt(mean(x^2) + epsilon) * weight, row by row. y may be x
 * or `added`. */
typedef struct LutraCudaRmsNorm {
  uint32_t bytes;
  int32_t weight_dtype; /* f32, f16 or bf16 */
  float epsilon;
  int32_t reserved;
  int64_t tokens;
  int64_t width;
  float* x;
  const float* added; /* or null */
  const void* weight;
  float* y;
} LutraCudaRmsNorm;

/* Rotates q [tokens, heads * head_dim] and k [tokens, kv_heads * head_dim] in place (half-split layout) and stores the
 * rotated k and v in the caches' rows from `position` on. q alone, k alone, v with `values` alone: each but cos_sin's
 * angles may be null, and is then left out; `keys` needs k. */
typedef struct LutraCudaRope {
  uint32_t bytes;
  int32_t cache_dtype; /* f32, f16 or bf16 */
  int32_t tokens;
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim; /* even */
  int64_t capacity; /* rows of the caches and of cos_sin */
  const int32_t* position;
  const float* cos_sin; /* [capacity, head_dim]: cosines of the head_dim / 2 angles, then their sines; null: no turn */
  float* q;
  float* k;
  const float* v;
  void* keys; /* [capacity, kv_heads * head_dim], as values */
  void* values;
} LutraCudaRope;

/* Causal grouped-query attention over the caches, whose rows 0 to position + tokens - 1 are valid. y is like q. */
typedef struct LutraCudaAttention {
  uint32_t bytes;
  int32_t cache_dtype;
  int32_t tokens;
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim; /* at most 1024 */
  int64_t capacity;
  int64_t window; /* positions that a query sees, itself included; 0: all */
  const int32_t* position;
  const float* q;
  const void* keys;
  const void* values;
  float* y;
  void* workspace; /* as LutraCudaLutGemm's */
} LutraCudaAttention;

/* y = gate / (1 + exp(-gate)) * up; y may be either. */
typedef struct LutraCudaSwiglu {
  uint32_t bytes;
  int32_t reserved;
  int64_t count;
  const float* gate;
  const float* up;
  float* y;
} LutraCudaSwiglu;

/* index [rows]: that of the row's largest number, the lowest on ties; a NaN is not larger than anything, nor anything
 * than a NaN at the row's start. value [rows]: that number, or NaN where the row has any. */
typedef struct LutraCudaArgMax {
  uint32_t bytes;
  int32_t reserved;
  int64_t rows;
  int64_t cols; /* 1 to 2^31 - 1 */
  const float* x;
  int32_t* index;
  float* value;
  void* workspace; /* as LutraCudaLutGemm's */
} LutraCudaArgMax;

typedef struct LutraCudaTable {
  uint32_t version;
  uint32_t bytes;

  void (*probe)(int32_t device, LutraCudaFacts* facts);
  int32_t (*create_context)(int32_t device, LutraCudaContext** context);
  void (*destroy_context)(LutraCudaContext* context); /* with everything that it made and that was not given back */
  const char* (*last_error)(LutraCudaContext* context);

  int32_t (*allocate)(LutraCudaContext* context, uint64_t bytes, void** memory);
  int32_t (*release)(LutraCudaContext* context, void* memory);
  int32_t (*upload)(LutraCudaContext* context, LutraCudaStream* stream, void* to, const void* from, uint64_t bytes);
  int32_t (*download)(LutraCudaContext* context, LutraCudaStream* stream, void* to, const void* from, uint64_t bytes);
  int32_t (*copy)(LutraCudaContext* context, LutraCudaStream* stream, void* to, const void* from, uint64_t bytes);
  int32_t (*clear)(LutraCudaContext* context, LutraCudaStream* stream, void* memory, uint64_t bytes);

  int32_t (*create_stream)(LutraCudaContext* context, LutraCudaStream** stream);
  int32_t (*destroy_stream)(LutraCudaContext* context, LutraCudaStream* stream);
  int32_t (*synchronize)(LutraCudaContext* context, LutraCudaStream* stream);
  int32_t (*create_event)(LutraCudaContext* context, LutraCudaEvent** event);
  int32_t (*destroy_event)(LutraCudaContext* context, LutraCudaEvent* event);
  int32_t (*record)(LutraCudaContext* context, LutraCudaStream* stream, LutraCudaEvent* event);
  int32_t (*wait)(LutraCudaContext* context, LutraCudaStream* stream, LutraCudaEvent* event);
  int32_t (*elapsed)(LutraCudaContext* context, LutraCudaEvent* from, LutraCudaEvent* to, float* milliseconds);

  int32_t (*workspace)(LutraCudaContext* context, int32_t op, const void* arguments, uint64_t* bytes);
  int32_t (*launch)(LutraCudaContext* context, LutraCudaStream* stream, int32_t op, const void* arguments);
  int32_t (*begin_capture)(LutraCudaContext* context, LutraCudaStream* stream);
  int32_t (*end_capture)(LutraCudaContext* context, LutraCudaStream* stream, LutraCudaGraph** graph);
  int32_t (*replay)(LutraCudaContext* context, LutraCudaStream* stream, LutraCudaGraph* graph);
  int32_t (*destroy_graph)(LutraCudaContext* context, LutraCudaGraph* graph);
} LutraCudaTable;

/* Null where the object does not speak this version. */
typedef const LutraCudaTable* (*LutraCudaOpen)(uint32_t version);

#ifdef __cplusplus
}
#endif
