#include "binding/tensor_object.h"

#include <atomic>
#include <cstring>

#include "binding/arguments.h"
#include "binding/environment.h"
#include "binding/failure.h"
#include "core/checked.h"
#include "core/half.h"

namespace lutra::binding {

namespace {

constexpr napi_type_tag kTensorTag = {0x6c75747261746e73, 0x1};
constexpr napi_type_tag kPackedTag = {0x6c75747261706b64, 0x1};
constexpr int64_t kMaxIndex = int64_t{1} << 53;

std::atomic<int64_t> total_bytes{0};

Dtype dtype_argument(const Napi::Value& value) {
  return static_cast<Dtype>(whole_number(value, "dtype", 0, static_cast<int64_t>(Dtype::kI8)));
}

// The typed array an element copy goes to or comes from, with element size checked.
uint8_t* array_bytes(const Napi::Value& value, size_t element_bytes, size_t* count, const char* where) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().ElementSize() != element_bytes)
    throw bad_argument(value.Env(), "LUTRA_E_DTYPE", "a typed array of the tensor's element size is needed", where);
  const Napi::TypedArray array = value.As<Napi::TypedArray>();
  *count = array.ElementLength();
  return static_cast<uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset();
}

template <typename T>
void fill_with(void* data, int64_t count, T value) {
  T* elements = static_cast<T*>(data);
  for (int64_t i = 0; i < count; ++i) elements[i] = value;
}

}  // namespace

Storage::Storage(size_t bytes) : buffer(AlignedBuffer::zeroed(bytes)) {
  total_bytes += static_cast<int64_t>(buffer.bytes());
}
Storage::~Storage() { total_bytes -= static_cast<int64_t>(buffer.bytes()); }
int64_t Storage::total() { return total_bytes.load(); }
void Storage::count(int64_t bytes) { total_bytes += bytes; }

Napi::Function TensorObject::define(Napi::Env env) {
  return DefineClass(env, "Tensor",
                     {StaticMethod<&TensorObject::borrow>("borrow"), InstanceMethod<&TensorObject::read>("read"),
                      InstanceMethod<&TensorObject::write>("write"), InstanceMethod<&TensorObject::sub_view>("view"),
                      InstanceMethod<&TensorObject::fill>("fill"), InstanceMethod<&TensorObject::dispose>("dispose")});
}

TensorObject& TensorObject::from(const Napi::Value& value, const char* where) {
  require_tag(value, kTensorTag, "a tensor is needed", where);
  TensorObject& tensor = *Unwrap(value.As<Napi::Object>());
  tensor.check_alive(where);
  return tensor;
}

// Called as new Tensor(dtype, shape), and from borrow and view with a TensorObject's state as one External.
TensorObject::TensorObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TensorObject>(info) {
  info.This().As<Napi::Object>().TypeTag(&kTensorTag);
  if (info[0].IsExternal()) return;
  view_.dtype = dtype_argument(info[0]);
  read_shape(info[1], &view_, "Tensor");
  storage_ = std::make_shared<Storage>(view_.bytes());
  if (!storage_->buffer)
    throw failure(info.Env(), error(Code::kOutOfMemory, "out of memory", static_cast<int64_t>(view_.bytes())),
                  "Tensor");
  view_.data = storage_->buffer.as<void>();
  report_bytes(info.Env(), static_cast<int64_t>(view_.bytes()));
}

void TensorObject::report_bytes(Napi::BasicEnv env, int64_t bytes) {
  if (bytes != reported_) Napi::MemoryManagement::AdjustExternalMemory(env, bytes - reported_);
  reported_ = bytes;
}

static TensorObject& empty_object(Napi::Env env, Napi::Object* object) {
  *object = Environment::of(env).tensor.New({Napi::External<void>::New(env, nullptr)});
  return *TensorObject::Unwrap(*object);
}

Napi::Value TensorObject::borrow(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsTypedArray()) throw bad_argument(env, "LUTRA_E_DTYPE", "a typed array is needed", "Tensor.borrow");
  const Napi::TypedArray array = info[0].As<Napi::TypedArray>();
  TensorView view;
  view.dtype = dtype_argument(info[1]);
  read_shape(info[2], &view, "Tensor.borrow");
  if (array.ElementSize() != dtype_bytes(view.dtype) || array.ByteLength() != view.bytes())
    throw bad_argument(env, "LUTRA_E_SHAPE", "the array does not have the tensor's bytes", "Tensor.borrow");
  Napi::Object object;
  TensorObject& tensor = empty_object(env, &object);
  tensor.view_ = view;
  tensor.borrowed_ = Napi::Reference<Napi::TypedArray>::New(array, 1);
  return object;
}

void TensorObject::check_alive(const char* where) {
  if (disposed_) throw bad_argument(Env(), "LUTRA_E_DISPOSED", "the tensor was disposed", where);
}

TensorView TensorObject::view(const char* where) {
  check_alive(where);
  if (storage_) return view_;
  // A detached array has no bytes: its length says so without a second call.
  const Napi::TypedArray array = borrowed_.Value();
  if (array.ByteLength() < byte_offset_ + view_.bytes())
    throw bad_argument(Env(), "LUTRA_E_DISPOSED", "the borrowed array was detached", where);
  TensorView view = view_;
  view.data = static_cast<uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset() + byte_offset_;
  return view;
}

std::shared_ptr<Storage> TensorObject::share(const char* where) {
  check_alive(where);
  if (!storage_)
    throw bad_argument(Env(), "LUTRA_E_OPTION", "native memory is needed here, not a borrowed array", where);
  return storage_;
}

void TensorObject::read(const Napi::CallbackInfo& info) {
  const TensorView source = view("Tensor.read");
  const size_t size = dtype_bytes(source.dtype);
  size_t count = 0;
  uint8_t* target = array_bytes(info[0], size, &count, "Tensor.read");
  const int64_t offset = whole_number(info[1], "offset", 0, kMaxIndex);
  if (offset + static_cast<int64_t>(count) > source.elements())
    throw bad_argument(info.Env(), "LUTRA_E_SHAPE", "more elements than the tensor has", "Tensor.read");
  if (count) std::memmove(target, source.as<uint8_t>() + static_cast<size_t>(offset) * size, count * size);
}

void TensorObject::write(const Napi::CallbackInfo& info) {
  const TensorView target = view("Tensor.write");
  const size_t size = dtype_bytes(target.dtype);
  size_t count = 0;
  const uint8_t* source = array_bytes(info[0], size, &count, "Tensor.write");
  const int64_t offset = whole_number(info[1], "offset", 0, kMaxIndex);
  if (offset + static_cast<int64_t>(count) > target.elements())
    throw bad_argument(info.Env(), "LUTRA_E_SHAPE", "more elements than the tensor has", "Tensor.write");
  if (count) std::memmove(target.as<uint8_t>() + static_cast<size_t>(offset) * size, source, count * size);
}

Napi::Value TensorObject::sub_view(const Napi::CallbackInfo& info) {
  check_alive("Tensor.view");
  const int64_t offset = whole_number(info[0], "offset", 0, kMaxIndex);
  TensorView view = view_;
  for (int64_t& n : view.shape) n = 0;
  read_shape(info[1], &view, "Tensor.view");
  if (offset + view.elements() > view_.elements())
    throw bad_argument(info.Env(), "LUTRA_E_SHAPE", "the view reaches past the tensor", "Tensor.view");
  const size_t bytes = static_cast<size_t>(offset) * dtype_bytes(view.dtype);
  Napi::Object object;
  TensorObject& tensor = empty_object(info.Env(), &object);
  tensor.view_ = view;
  tensor.storage_ = storage_;
  if (storage_) tensor.view_.data = view_.as<uint8_t>() + bytes;
  if (!storage_) {
    tensor.byte_offset_ = byte_offset_ + bytes;
    tensor.borrowed_ = Napi::Reference<Napi::TypedArray>::New(borrowed_.Value(), 1);
  }
  return object;
}

void TensorObject::fill(const Napi::CallbackInfo& info) {
  const TensorView target = view("Tensor.fill");
  if (!info[0].IsNumber()) throw bad_argument(info.Env(), "LUTRA_E_OPTION", "a number is needed", "Tensor.fill");
  const double value = info[0].As<Napi::Number>().DoubleValue();
  const float single = static_cast<float>(value);
  const int64_t count = target.elements();
  switch (target.dtype) {
    case Dtype::kF32:
      return fill_with(target.data, count, single);
    case Dtype::kF64:
      return fill_with(target.data, count, value);
    case Dtype::kF16:
      return fill_with(target.data, count, float_to_half(single));
    case Dtype::kBF16:
      return fill_with(target.data, count, float_to_bfloat16(single));
    case Dtype::kU8:
      return fill_with(target.data, count, static_cast<uint8_t>(whole_number(info[0], "value", 0, 255)));
    case Dtype::kI8:
      return fill_with(target.data, count, static_cast<int8_t>(whole_number(info[0], "value", INT8_MIN, INT8_MAX)));
    case Dtype::kI32:
      return fill_with(target.data, count, static_cast<int32_t>(whole_number(info[0], "value", INT32_MIN, INT32_MAX)));
  }
}

void TensorObject::dispose(const Napi::CallbackInfo& info) {
  report_bytes(info.Env(), 0);
  disposed_ = true;
  storage_ = nullptr;
  borrowed_.Reset();
}

Napi::Function PackedObject::define(Napi::Env env) {
  return DefineClass(env, "Packed", {InstanceMethod<&PackedObject::dispose>("dispose")});
}

PackedObject& PackedObject::from(const Napi::Value& value, const char* where) {
  require_tag(value, kPackedTag, "packed weights are needed", where);
  return *Unwrap(value.As<Napi::Object>());
}

namespace {

// [a, b, scales of a or null, scales of b or null]
void read_sub_branch(const Napi::Value& value, PackedObject::Owned* owned) {
  const Napi::Env env = value.Env();
  const PackedLayout& layout = owned->view.layout;
  TensorView views[4];
  size_t count = 0;
  each_element(value, 4, "subBranch", [&](const Napi::Value& element) {
    const size_t i = count++;
    if (element.IsNull()) return;
    TensorObject& tensor = TensorObject::from(element, "subBranch");
    views[i] = tensor.view("subBranch");
    owned->sub_branch[i] = tensor.share("subBranch");
  });
  const auto expect = [&](bool right, const char* what) {
    if (!right) throw bad_argument(env, "LUTRA_E_SHAPE", what, "subBranch");
  };
  expect(views[0].rank == 2 && views[0].shape[1] == layout.cols, "a must be [rank, cols]");
  const int64_t rank = views[0].shape[0];
  expect(rank > 0, "a sub-branch has a rank of at least 1");
  expect(views[1].rank == 2 && views[1].shape[0] == layout.rows && views[1].shape[1] == rank, "b must be [rows, rank]");
  expect(views[0].dtype == views[1].dtype, "a and b must be of one element type");
  for (size_t i : {2, 3}) {
    const int64_t rows = i == 2 ? rank : layout.rows;
    expect(!views[i].data || (views[i].dtype == Dtype::kF32 && views[i].elements() == rows), "a row has one f32 scale");
  }
  owned->view.sub_branch = {
      rank, views[0].dtype, views[0].data, views[1].data, views[2].as<const float>(), views[3].as<const float>()};
  throw_unless_ok(env, check_sub_branch(layout, owned->view.sub_branch), "subBranch");
}

}  // namespace

// new Packed(codes, scales, offsets or null, [rows, cols, bits, groupSize, weight kind, offset kind], sub-branch or
// null)
PackedObject::PackedObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PackedObject>(info) {
  const Napi::Env env = info.Env();
  info.This().As<Napi::Object>().TypeTag(&kPackedTag);
  TensorObject& codes = TensorObject::from(info[0], "codes");
  TensorObject& scales = TensorObject::from(info[1], "scales");
  const std::vector<double> numbers = number_array(info[3], "layout", 6);
  if (numbers.size() != 6) throw bad_argument(env, "LUTRA_E_OPTION", "six numbers are needed", "layout");

  auto owned = std::make_shared<Owned>();
  PackedLayout& layout = owned->view.layout;
  layout.rows = static_cast<int64_t>(numbers[0]);
  layout.cols = static_cast<int64_t>(numbers[1]);
  layout.bits = narrowed<int>(static_cast<int64_t>(numbers[2]));
  layout.group_size = static_cast<int64_t>(numbers[3]);
  layout.kind = narrowed<WeightKind>(static_cast<int64_t>(numbers[4]));
  layout.offset_kind = narrowed<OffsetKind>(static_cast<int64_t>(numbers[5]));
  const TensorView codes_view = codes.view("codes");
  const TensorView scales_view = scales.view("scales");
  layout.scale_dtype = scales_view.dtype;
  TensorView offsets_view;
  if (!info[2].IsNull()) {
    TensorObject& offsets = TensorObject::from(info[2], "offsets");
    offsets_view = offsets.view("offsets");
    owned->offsets = offsets.share("offsets");
    if (layout.offset_kind == OffsetKind::kReal) layout.offset_dtype = offsets_view.dtype;
  }
  throw_unless_ok(env, check_layout(layout), "layout");

  const auto expect = [&](bool right, const char* what) {
    if (!right) throw bad_argument(env, "LUTRA_E_SHAPE", "the bytes do not fit the layout", what);
  };
  expect(codes_view.dtype == Dtype::kU8 && codes_view.elements() == layout.codes_words() * 4, "codes");
  expect(scales_view.elements() == layout.scales_elements(), "scales");
  expect(
      layout.offset_kind == OffsetKind::kNone ? !owned->offsets : offsets_view.elements() == layout.offsets_elements(),
      "offsets");
  expect(layout.offset_kind != OffsetKind::kZeroCode || offsets_view.dtype == Dtype::kU8, "offsets");
  owned->codes = codes.share("codes");
  owned->scales = scales.share("scales");
  owned->view.codes = codes_view.as<const uint32_t>();
  owned->view.scales = scales_view.data;
  owned->view.offsets = offsets_view.data;
  expect(reinterpret_cast<uintptr_t>(owned->view.codes) % alignof(uint32_t) == 0, "codes");
  if (!info[4].IsNull()) read_sub_branch(info[4], owned.get());
  owned_ = std::move(owned);
}

const std::shared_ptr<PackedObject::Owned>& PackedObject::owned(const char* where) {
  if (!owned_) throw bad_argument(Env(), "LUTRA_E_DISPOSED", "the packed weights were disposed", where);
  return owned_;
}

void PackedObject::dispose(const Napi::CallbackInfo&) { owned_ = nullptr; }

}  // namespace lutra::binding
