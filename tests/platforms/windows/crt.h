#pragma once
typedef unsigned long long size_t;
typedef long clock_t;
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
template <class> constexpr bool is_arithmetic_v = false;
template <> constexpr bool is_arithmetic_v<int> = true;
template <> constexpr bool is_arithmetic_v<float> = true;
template <> constexpr bool is_arithmetic_v<double> = true;
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
double _j0(double); double _j1(double); double _jn(int, double); double _y0(double); double _y1(double); double _yn(int, double);
}
#endif
