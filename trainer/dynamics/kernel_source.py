"""C++ of a traced step: one loop over time around element-wise loops and matrix products.

Arrays are (row, lane) with the lanes padded to a multiple of 16: lanes are nodes or batch members,
whichever wastes less. Every sum runs over sources in order, so that neither the layout, nor the
batch, nor the cut of a run changes a bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.dynamics.tracing import COMPARISONS, Instruction, Program, Ref

# How a parameter lies on (row, lane): one number, one per row, one per lane, one per element.
KINDS = ("scalar", "row", "lane", "full")


@dataclass(frozen=True)
class Shape:
    """What a kernel is made for, apart from sizes.

    kinds: of every parameter and driven input by (role, name), one of KINDS. lanes: "node" or
    "batch" or "flat". signals: how many travel. taps, lags: how delays arrive.
    """

    kinds: tuple[tuple[tuple[str, str], str], ...]
    lanes: str
    number: str
    signals: int
    taps: int
    lags: tuple[int, ...]


def source(program: Program, shape: Shape, name: str) -> str:
    """C++ of the function `name`, "forward" or "backward", of a program."""
    writer = _Writer(program, shape)
    written = writer.forward() if name == "forward" else writer.backward()
    return "\n".join(
        [_HEAD.replace("NUMBER", shape.number).replace("LAYOUT", shape.lanes), written]
    )


def temporaries(program: Program, shape: Shape) -> int:
    """How many temporary arrays a program needs."""
    return len(_Writer(program, shape).saved)


def kept_carry(program: Program, ref: Ref) -> int | None:
    """Number of the carry that a value is, where it is one: its steps are stored already."""
    role, name = program.inputs[int(ref)] if ref < len(program.inputs) else ("", "")
    return int(name) if isinstance(ref, int) and role == "carry" else None


class _Writer:
    """Writes the time loop of one program."""

    def __init__(self, program: Program, shape: Shape) -> None:
        self.program, self.shape = program, shape
        self.kinds = dict(shape.kinds)
        self.first = len(program.inputs)
        self.levels = self._levels()
        self.uniform = self._uniform()
        self.saved = self._saved()

    def forward(self) -> str:
        """The function `forward`."""
        body = [
            "I next = a.first_kept, next_sample = 0;",
            "for (I t = 0; t < a.steps; ++t) {",
            "  const T* carry = a.carry + (a.stored ? t : t % 2) * a.carries * size;",
            "  T* moved = a.carry + (a.stored ? t + 1 : (t + 1) % 2) * a.carries * size;",
            "  const T* normals = a.normals + t * a.numbers * size;",
            "  T* arrived = a.arrived + (a.stored ? t : 0) * a.arrivals * size;",
            "  T* sent = a.history + (a.past + t) * a.signals * size;",
            *self._arrivals(),
            *self._segments(),
            "  if (t == next) {",
            "    keep(a, next_sample++, moved);",
            "    next += a.every;",
            "  }",
            "}",
        ]
        return _function("forward", [*self._hoisted(), *body])

    def backward(self) -> str:
        """The function `backward`: cotangents, from the last step to the first."""
        body = [
            "for (I t = a.steps - 1; t >= 0; --t) {",
            "  const T* carry = a.carry + t * a.carries * size;",
            "  const T* normals = a.normals + t * a.numbers * size;",
            "  const T* arrived = a.arrived + t * a.arrivals * size;",
            "  T* cotangent = a.cotangent + (t + 1) % 2 * a.carries * size;",
            "  T* moved = a.cotangent + t % 2 * a.carries * size;",
            "  const T* cotangent_sent = a.cotangent_history + (a.past + t) * a.signals * size;",
            "  T* cotangent_arrived = a.cotangent_arrived;",
            "  T* left = a.left + t * a.outer * size;",
            "  T* right = a.right + t * a.outer * size;",
            "  if (t >= a.first_kept && (t - a.first_kept) % a.every == 0)",
            "    regain(a, (t - a.first_kept) / a.every, cotangent);",
            *self._segments(),
            *self._scattered(),
            "}",
        ]
        return _function("backward", [*self._hoisted(), *body])

    def _levels(self) -> list[int]:
        """Of every value, after how many products it is computed: as late as its users allow."""
        levels = [0] * self.first
        for instruction in self.program.instructions:
            before = max((levels[ref] for ref in _values(instruction)), default=0)
            levels.append(before + instruction.op.startswith("product"))
        latest = [max(levels, default=0)] * len(levels)
        for number in range(len(levels) - 1, self.first - 1, -1):
            instruction = self.program.instructions[number - self.first]
            product = instruction.op.startswith("product")
            if product:
                latest[number] = levels[number]
            for ref in _values(instruction):
                latest[ref] = min(latest[ref], latest[number] - product)
        return [0] * self.first + latest[self.first :]

    def _uniform(self) -> set[int]:
        """Values that depend on scalar parameters alone: computed once before the loop."""
        uniform = {
            number
            for number, label in enumerate(self.program.inputs)
            if self.kinds.get(label) == "scalar" and label[0] == "parameter"
        }
        for number, instruction in enumerate(self.program.instructions, start=self.first):
            if set(_values(instruction)) <= uniform and not instruction.op.startswith("product"):
                uniform.add(number)
        return uniform

    def _saved(self) -> dict[int, int]:
        """Places in the temporary array: operands and results of products, and what is read later.

        Inputs that lie in memory as full arrays need none.
        """
        saved: dict[int, int] = {}
        for number, instruction in enumerate(self.program.instructions, start=self.first):
            product = instruction.op.startswith("product")
            if product:
                saved.setdefault(number, len(saved))
            for ref in _values(instruction):
                later = ref >= self.first and self.levels[ref] < self.levels[number]
                if later and ref not in self.uniform:
                    saved.setdefault(ref, len(saved))
                if product and not self._in_memory(ref):
                    saved.setdefault(ref, len(saved))
        for _, _, ref in self.program.outputs:
            computed = isinstance(ref, int) and ref >= self.first and ref not in self.uniform
            if computed and self.levels[ref] < self._last():
                saved.setdefault(ref, len(saved))
        return saved

    def _in_memory(self, ref: int) -> bool:
        """Whether a value is an input that lies in memory as a full array."""
        return ref < self.first and self.program.inputs[ref][0] in _ARRAYS

    def _last(self) -> int:
        return max(self.levels, default=0)

    def _hoisted(self) -> list[str]:
        lines = []
        for number in sorted(self.uniform):
            if number < self.first:
                lines.append(f"const T v{number} = a.parameter[{self._parameter(number)}][0];")
            else:
                instruction = self.program.instructions[number - self.first]
                lines.append(f"const auto v{number} = {self._expression(instruction)};")
        return lines

    def _segments(self) -> list[str]:
        """The element-wise loops, and the products between them."""
        lines: list[str] = []
        for level in range(self._last() + 1):
            for number, instruction in enumerate(self.program.instructions, start=self.first):
                if instruction.op.startswith("product") and self.levels[number] == level:
                    lines.append("  " + self._product(number, instruction))
            lines += self._loop(level)
        return lines

    def _loop(self, level: int) -> list[str]:
        """One loop over the elements: every value of this level."""
        body: list[str] = []
        loaded: set[int] = set()

        def load(ref: Ref) -> None:
            if not isinstance(ref, int) or ref in self.uniform or ref in loaded:
                return
            if ref < self.first or self.levels[ref] < level or self._is_product(ref):
                loaded.add(ref)
                body.append(f"const auto v{ref} = {self._load(ref)};")

        for number, instruction in enumerate(self.program.instructions, start=self.first):
            if self.levels[number] != level or number in self.uniform:
                continue
            if not instruction.op.startswith("product"):
                for ref in instruction.args:
                    load(ref)
                body.append(f"const auto v{number} = {self._expression(instruction)};")
                loaded.add(number)
            if number in self.saved and not instruction.op.startswith("product"):
                body.append(f"a.temporary[{self.saved[number]} * size + e] = T(v{number});")
        if level == 0:
            for ref in sorted(self.saved):
                if ref < self.first:
                    load(ref)
                    body.append(f"a.temporary[{self.saved[ref]} * size + e] = v{ref};")
        if level == self._last():
            for _, _, ref in self.program.outputs:
                load(ref)
            for role, name, ref in self.program.outputs:
                if role in ("left", "right") and kept_carry(self.program, ref) is not None:
                    continue
                value = f"v{ref}" if isinstance(ref, int) else _literal(ref)
                body.append(self._store(role, name, f"T({value})"))
        if not body:
            return []
        return [
            "  for (I r = 0; r < a.rows; ++r) {",
            '    _Pragma("omp simd")',
            "    for (I c = 0; c < a.lanes; ++c) {",
            "      const I e = r * a.lanes + c;",
            *("      " + line for line in body),
            "    }",
            "  }",
        ]

    def _is_product(self, ref: int) -> bool:
        return ref >= self.first and self.program.instructions[ref - self.first].op.startswith(
            "product"
        )

    def _load(self, ref: int) -> str:
        if ref >= self.first:
            text = f"a.temporary[{self.saved[ref]} * size + e]"
            boolean = self.program.instructions[ref - self.first].op in COMPARISONS
            return f"({text} != T(0))" if boolean else text
        role, name = self.program.inputs[ref]
        if role in _ARRAYS:
            return f"{_ARRAYS[role]}[{name} * size + e]"
        place = {"scalar": "0", "row": "r", "lane": "c", "full": "e"}[self.kinds[role, name]]
        if role == "drive":
            return f"a.drive[{name}][t * a.drive_stride[{name}] + {place}]"
        return f"a.parameter[{self._parameter(ref)}][{place}]"

    def _parameter(self, ref: int) -> int:
        names = [name for role, name in self.program.inputs if role == "parameter"]
        return names.index(self.program.inputs[ref][1])

    def _store(self, role: str, name: str, value: str) -> str:
        backward = any(role == "cotangent_carry" for role, _ in self.program.inputs)
        if role == "carry":
            return f"moved[{name} * size + e] = {value};"
        if role == "sent":
            return f"sent[{name} * size + e] = {value};"
        if role == "arrived":
            return f"cotangent_arrived[{name} * size + e] = {value};"
        if role in ("left", "right"):
            return f"{role}[{name} * size + e] = {value};"
        assert backward
        wanted = [(r, n) for r, n, _ in self.program.outputs if r == role]
        place = wanted.index((role, name))
        if role == "drive":
            return f"a.cotangent_drive[{place}][t * size + e] = {value};"
        return f"a.gradient[{place} * size + e] += {value};"

    def _product(self, number: int, instruction: Instruction) -> str:
        back = instruction.op == "product_back"
        operand = int(instruction.args[0])
        if self._in_memory(operand):
            role, name = self.program.inputs[operand]
            given = f"{_ARRAYS[role]} + {name} * size"
        else:
            given = f"a.temporary + {self.saved[operand]} * size"
        result = f"a.temporary + {self.saved[number]} * size"
        weights = "a.weights_back" if back else "a.weights"
        if self.shape.lanes == "node":
            return f"product(a.rows, a.nodes, a.lanes, {given}, a.lanes, {weights}, {result});"
        return f"product(a.rows, a.nodes, a.lanes, {weights}, a.nodes, {given}, {result});"

    def _arrivals(self) -> list[str]:
        if not (self.shape.taps or self.shape.lags):
            return []
        lines = ["  const T* past = a.history + (a.past + t - 1) * a.signals * size;"]
        coupled = self.shape.signals - len(set(self.shape.lags))
        if self.shape.taps:
            lines += [
                f"  for (I s = 0; s < {coupled}; ++s)",
                f"    arrive_{self.shape.lanes}(a, past + s * size, arrived + s * size);",
            ]
        for number, signal in enumerate(self.shape.lags):
            place = (coupled if self.shape.taps else 0) + number
            lines.append(f"  lag(a, {number}, past + {signal} * size, arrived + {place} * size);")
        return lines

    def _scattered(self) -> list[str]:
        if not (self.shape.taps or self.shape.lags):
            return []
        lines = [
            "  T* into = a.cotangent_history + (a.past + t - 1) * a.signals * size;",
            "  const T* past = a.history + (a.past + t - 1) * a.signals * size;",
        ]
        coupled = self.shape.signals - len(set(self.shape.lags))
        if self.shape.taps:
            lines += [
                f"  for (I s = 0; s < {coupled}; ++s)",
                f"    scatter_{self.shape.lanes}(a, cotangent_arrived + s * size, into + s * size,"
                " past + s * size);",
            ]
        for number, signal in enumerate(self.shape.lags):
            place = (coupled if self.shape.taps else 0) + number
            lines.append(
                f"  lag_back(a, {number}, cotangent_arrived + {place} * size, "
                f"into + {signal} * size);"
            )
        return lines

    def _expression(self, instruction: Instruction) -> str:
        args = [f"v{ref}" if isinstance(ref, int) else _literal(ref) for ref in instruction.args]
        return _CODE[instruction.op].format(*args)


# Where the full arrays of a step lie.
_ARRAYS = {
    "carry": "carry",
    "normal": "normals",
    "arrived": "arrived",
    "cotangent_carry": "cotangent",
    "cotangent_sent": "cotangent_sent",
}


def _values(instruction: Instruction) -> list[int]:
    return [ref for ref in instruction.args if isinstance(ref, int)]


def _literal(value: float) -> str:
    if math.isinf(value):
        return "T(__builtin_inf())" if value > 0 else "T(-__builtin_inf())"
    return 'T(__builtin_nan(""))' if math.isnan(value) else f"T({value.hex()})"


def _function(name: str, body: list[str]) -> str:
    lines = [
        f'extern "C" void {name}(const Arguments* given) {{',
        "  const Flushed flushed;",
        "  const Arguments& a = *given;",
        "  const I size = a.rows * a.lanes;",
        *("  " + line for line in body),
        "}",
    ]
    return "\n".join(lines)


_CODE = {
    "add": "({0} + {1})", "sub": "({0} - {1})", "mul": "({0} * {1})", "div": "({0} / {1})",
    "pow": "pow_({0}, {1})", "atan2": "atan2_({0}, {1})",
    "maximum": "larger({0}, {1})", "minimum": "smaller({0}, {1})",
    "neg": "(-{0})", "abs": "abs_({0})", "exp": "exp_({0})", "expm1": "expm1_({0})",
    "log": "log_({0})", "log1p": "log1p_({0})", "sin": "sin_({0})", "cos": "cos_({0})",
    "tan": "tan_({0})", "tanh": "tanh_({0})", "sqrt": "sqrt_({0})",
    "rsqrt": "(T(1) / sqrt_({0}))", "floor": "floor_({0})",
    "sign": "(T({0} > T(0)) - T({0} < T(0)))", "where": "({0} ? T({1}) : T({2}))",
    "gt": "({0} > {1})", "ge": "({0} >= {1})", "lt": "({0} < {1})", "le": "({0} <= {1})",
    "eq": "({0} == {1})", "ne": "({0} != {1})",
    "logical_and": "({0} & {1})", "logical_or": "({0} | {1})", "logical_not": "(!{0})",
    "bitwise_and": "({0} & {1})", "bitwise_or": "({0} | {1})", "bitwise_not": "(!{0})",
}  # fmt: skip

_HEAD = r"""
#include <cstdint>
#include <cstring>
typedef NUMBER T;
typedef int64_t I;

// Vector versions of the mathematical functions, where the C library has them.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(SCALAR_FUNCTIONS)
#define VECTOR __attribute__((simd("notinbranch"), const))
#else
#define VECTOR
#endif
extern "C" {
#define DECLARE(name) VECTOR float name##f(float) noexcept; VECTOR double name(double) noexcept;
DECLARE(exp) DECLARE(expm1) DECLARE(log) DECLARE(log1p) DECLARE(sin) DECLARE(cos) DECLARE(tan)
DECLARE(tanh)
VECTOR float powf(float, float) noexcept; VECTOR double pow(double, double) noexcept;
VECTOR float atan2f(float, float) noexcept; VECTOR double atan2(double, double) noexcept;
}
#define WRAP(name) \
  static inline __attribute__((always_inline)) float name##_(float x) { return name##f(x); } \
  static inline __attribute__((always_inline)) double name##_(double x) { return name(x); }
WRAP(exp) WRAP(expm1) WRAP(log) WRAP(log1p) WRAP(sin) WRAP(cos) WRAP(tan) WRAP(tanh)
static inline float pow_(float x, float y) { return powf(x, y); }
static inline double pow_(double x, double y) { return pow(x, y); }
static inline float atan2_(float x, float y) { return atan2f(x, y); }
static inline double atan2_(double x, double y) { return atan2(x, y); }
static inline float sqrt_(float x) { return __builtin_sqrtf(x); }
static inline double sqrt_(double x) { return __builtin_sqrt(x); }
static inline float floor_(float x) { return __builtin_floorf(x); }
static inline double floor_(double x) { return __builtin_floor(x); }
static inline float abs_(float x) { return __builtin_fabsf(x); }
static inline double abs_(double x) { return __builtin_fabs(x); }
static inline T larger(T x, T y) { return ((x > y) | (x != x)) ? x : y; }
static inline T smaller(T x, T y) { return ((x < y) | (x != x)) ? x : y; }

// Numbers below the smallest normal one are 0 while a loop runs: a state that fades out would
// otherwise cost some fifty times as much.
#if defined(__SSE2__)
struct Flushed {
  const unsigned before = __builtin_ia32_stmxcsr();
  Flushed() { __builtin_ia32_ldmxcsr(before | 0x8040); }
  ~Flushed() { __builtin_ia32_ldmxcsr(before); }
};
#elif defined(__aarch64__)
struct Flushed {
  uint64_t before;
  Flushed() {
    asm volatile("mrs %0, fpcr" : "=r"(before));
    asm volatile("msr fpcr, %0" : : "r"(before | 1ull << 24));
  }
  ~Flushed() { asm volatile("msr fpcr, %0" : : "r"(before)); }
};
#else
struct Flushed {
  ~Flushed() {}
};
#endif

struct Arguments {
  I steps, rows, lanes, nodes, batch, carries, numbers, arrivals, signals, past, stored;
  I first_kept, every, outer, taps, kept, count;
  T *carry, *samples, *history, *arrived, *temporary;
  const I *kept_states;
  const T *normals, *weights, *weights_back;
  const T *const *parameter, *const *drive;
  const I *drive_stride;
  const T *const *tap_weights;
  const int32_t *const *tap_offsets;
  const T *const *lag_later;
  const int32_t *const *lag_steps;
  T *cotangent, *cotangent_history, *cotangent_arrived, *left, *right, *gradient;
  T *const *cotangent_drive;
  T *const *tap_gradient;
};

// Samples are (state, sample, batch, node), written one after the other; `count` in all.
enum Lanes { node, batch, flat };
static const Lanes LANES_ARE = LAYOUT;
template <class Each>
static inline void samples(const Arguments& a, I sample, const Each& each) {
  const I size = a.rows * a.lanes;
  for (I s = 0; s < a.kept; ++s)
    for (I b = 0; b < a.batch; ++b) {
      T* to = a.samples + ((s * a.count + sample) * a.batch + b) * a.nodes;
      const I from = a.kept_states[s] * size;
      if (LANES_ARE == batch)
        for (I n = 0; n < a.nodes; ++n) each(to[n], from + n * a.lanes + b);
      else {
        const I start = from + b * (LANES_ARE == flat ? a.nodes : a.lanes);
        for (I n = 0; n < a.nodes; ++n) each(to[n], start + n);
      }
    }
}
static void keep(const Arguments& a, I sample, const T* state) {
  samples(a, sample, [=](T& to, I from) { to = state[from]; });
}
static void regain(const Arguments& a, I sample, T* cotangent) {
  samples(a, sample, [=](T& to, I from) { cotangent[from] += to; });
}

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
typedef T V __attribute__((vector_size(WIDTH), aligned(sizeof(T))));
static const I LANES = WIDTH / sizeof(T);
static inline V load(const T* from) { return *(const V*)from; }
static inline void store(T* to, V value) { *(V*)to = value; }
static inline V all(T value) { return value - (V){}; }

// A block of ROWS x VECTORS results; each is a sum over k in order, whatever the block.
template <int ROWS, int VECTORS>
static inline __attribute__((always_inline)) void block(
    I inner, const T* left, I left_stride, const T* right, I right_stride, T* result) {
  V sum[ROWS][VECTORS] = {};
  for (I k = 0; k < inner; ++k)
    for (int v = 0; v < VECTORS; ++v) {
      const V own = load(right + k * right_stride + v * LANES);
      for (int r = 0; r < ROWS; ++r) sum[r][v] += left[r * left_stride + k] * own;
    }
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < VECTORS; ++v) store(result + r * right_stride + v * LANES, sum[r][v]);
}
template <int ROWS, int VECTORS>
static void columns(I rows, I inner, const T* left, I left_stride, const T* right, I stride,
                    T* result) {
  I r = 0;
  for (; r + ROWS <= rows; r += ROWS)
    block<ROWS, VECTORS>(inner, left + r * left_stride, left_stride, right, stride,
                         result + r * stride);
  for (; r + 2 <= rows; r += 2)
    block<2, VECTORS>(inner, left + r * left_stride, left_stride, right, stride,
                      result + r * stride);
  for (; r < rows; ++r)
    block<1, VECTORS>(inner, left + r * left_stride, left_stride, right, stride,
                      result + r * stride);
}
// result (row, lane) = left (row, inner) right (inner, lane); blocks fill the registers.
static void product(I rows, I inner, I lanes, const T* left, I left_stride, const T* right,
                    T* result) {
  I c = 0;
  for (; c + 6 * LANES <= lanes; c += 6 * LANES)
    columns<4, 6>(rows, inner, left, left_stride, right + c, lanes, result + c);
  for (; c + 4 * LANES <= lanes; c += 4 * LANES)
    columns<6, 4>(rows, inner, left, left_stride, right + c, lanes, result + c);
  for (; c + 2 * LANES <= lanes; c += 2 * LANES)
    columns<8, 2>(rows, inner, left, left_stride, right + c, lanes, result + c);
  for (; c < lanes; c += LANES)
    columns<8, 1>(rows, inner, left, left_stride, right + c, lanes, result + c);
}

// Delays. `newest` is the newest step of one signal; offsets hold delays as distances in memory.
template <int VECTORS>
static inline void arrive_at(const Arguments& a, I i, I c, const T* newest, T* result) {
  V sum[VECTORS] = {};
  for (I k = 0; k < a.taps; ++k) {
    const T* weights = a.tap_weights[k] + i * a.nodes;
    const int32_t* offsets = a.tap_offsets[k] + i * a.nodes;
    for (I j = 0; j < a.nodes; ++j) {
      const T* sent = newest - offsets[j] + j * a.lanes + c;
      for (int v = 0; v < VECTORS; ++v) sum[v] += weights[j] * load(sent + v * LANES);
    }
  }
  for (int v = 0; v < VECTORS; ++v) store(result + i * a.lanes + c + v * LANES, sum[v]);
}
static inline void arrive_batch(const Arguments& a, const T* newest, T* result) {
  for (I i = 0; i < a.nodes; ++i) {
    I c = 0;
    for (; c + 4 * LANES <= a.lanes; c += 4 * LANES) arrive_at<4>(a, i, c, newest, result);
    for (; c < a.lanes; c += LANES) arrive_at<1>(a, i, c, newest, result);
  }
}
static inline void scatter_batch(const Arguments& a, const T* cotangent, T* into,
                                 const T* newest) {
  for (I i = 0; i < a.nodes; ++i)
    for (I k = 0; k < a.taps; ++k) {
      const T* own = cotangent + i * a.lanes;
      T* gradient = a.tap_gradient ? a.tap_gradient[k] + i * a.nodes : nullptr;
      for (I j = 0; j < a.nodes; ++j) {
        const T weight = a.tap_weights[k][i * a.nodes + j];
        const I place = j * a.lanes - a.tap_offsets[k][i * a.nodes + j];
        for (I c = 0; c < a.lanes; c += LANES)
          store(into + place + c, load(into + place + c) + weight * load(own + c));
        if (gradient) {
          T sum = 0;
          for (I b = 0; b < a.batch; ++b) sum += own[b] * newest[place + b];
          gradient[j] += sum;
        }
      }
    }
}
// With lanes of nodes, taps are (source, target lane).
static inline void arrive_node(const Arguments& a, const T* newest, T* result) {
  for (I r = 0; r < a.rows; ++r)
    for (I c = 0; c < a.lanes; c += 16) {
      T sum[16] = {};
      for (I k = 0; k < a.taps; ++k)
        for (I j = 0; j < a.nodes; ++j) {
          const T* weights = a.tap_weights[k] + j * a.lanes + c;
          const int32_t* offsets = a.tap_offsets[k] + j * a.lanes + c;
          const T* sent = newest + r * a.lanes + j;
          _Pragma("omp simd")
          for (int v = 0; v < 16; ++v) sum[v] += weights[v] * sent[-(I)offsets[v]];
        }
      for (int v = 0; v < 16; ++v) result[r * a.lanes + c + v] = sum[v];
    }
}
static inline void scatter_node(const Arguments& a, const T* cotangent, T* into,
                                const T* newest) {
  for (I r = 0; r < a.rows; ++r)
    for (I k = 0; k < a.taps; ++k)
      for (I j = 0; j < a.nodes; ++j) {
        const T* weights = a.tap_weights[k] + j * a.lanes;
        const int32_t* offsets = a.tap_offsets[k] + j * a.lanes;
        T* gradient = a.tap_gradient ? a.tap_gradient[k] + j * a.lanes : nullptr;
        const T* own = cotangent + r * a.lanes;
        const I place = r * a.lanes + j;
        for (I i = 0; i < a.nodes; ++i) into[place - offsets[i]] += weights[i] * own[i];
        if (gradient)
          for (I i = 0; i < a.nodes; ++i) gradient[i] += own[i] * newest[place - offsets[i]];
      }
}
static inline void lag(const Arguments& a, I which, const T* newest, T* result) {
  const I age = a.signals * a.rows * a.lanes;
  for (I r = 0; r < a.rows; ++r)
    for (I c = 0; c < a.lanes; ++c) {
      const I n = LANES_ARE == batch ? r : c < a.nodes ? c : 0;
      const T* near = newest + r * a.lanes + c - a.lag_steps[which][n] * age;
      const T later = a.lag_later[which][n];
      result[r * a.lanes + c] = near[0] + later * (near[-age] - near[0]);
    }
}
static inline void lag_back(const Arguments& a, I which, const T* cotangent, T* into) {
  const I age = a.signals * a.rows * a.lanes;
  for (I r = 0; r < a.rows; ++r)
    for (I c = 0; c < a.lanes; ++c) {
      const I n = LANES_ARE == batch ? r : c < a.nodes ? c : 0;
      T* near = into + r * a.lanes + c - a.lag_steps[which][n] * age;
      const T later = a.lag_later[which][n], own = cotangent[r * a.lanes + c];
      near[0] += (T(1) - later) * own;
      near[-age] += later * own;
    }
}
"""
