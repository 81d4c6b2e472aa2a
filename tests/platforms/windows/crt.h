#pragma once
typedef unsigned long long size_t;
typedef long clock_t;
typedef signed char int8_t; typedef short int16_t; typedef int int32_t; typedef long long int64_t, intptr_t;
typedef unsigned char uint8_t; typedef unsigned short uint16_t; typedef unsigned uint32_t;
typedef unsigned long long uint64_t, uintptr_t;
typedef char *va_list;
#define _CRTIMP
#define _ACRTIMP
#define __CRTDECL __cdecl
#define NULL 0
#ifdef __cplusplus
namespace std {
template <bool, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { using type = T; };
template <bool B, class T = void> using enable_if_t = typename enable_if<B, T>::type;
template <class> struct is_arithmetic { static constexpr bool value = false; };
template <> struct is_arithmetic<int> { static constexpr bool value = true; };
template <> struct is_arithmetic<float> { static constexpr bool value = true; };
template <> struct is_arithmetic<double> { static constexpr bool value = true; };
template <class T> constexpr bool is_arithmetic_v = is_arithmetic<T>::value;
template <class, class> using _Common_float_type_t = double;
template <class T> T &&forward(T &t) { return static_cast<T &&>(t); }
template <class T> T &&move(T &t) { return static_cast<T &&>(t); }
}
template <class T> bool isinf(T) { return false; }
template <class T> bool isnan(T) { return false; }
template <class T> bool isfinite(T) { return false; }
template <class T> bool signbit(T) { return false; }
void *operator new(size_t, void *) noexcept;
extern "C" {
unsigned short _byteswap_ushort(unsigned short); unsigned long _byteswap_ulong(unsigned long); unsigned long long _byteswap_uint64(unsigned long long);
int atexit(void (*)(void)); void exit(int); void abort(void);
void *__acrt_iob_func(unsigned); int printf(const char *, ...); int fprintf(void *, const char *, ...);
double _j0(double); double _j1(double); double _jn(int, double); double _y0(double); double _y1(double); double _yn(int, double);
}
#define stderr __acrt_iob_func(2)
namespace std { using ::fprintf; using ::printf; }
#endif
