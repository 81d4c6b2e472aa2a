# CMakeLists.txt of the project that prints which targets find_package(CUDAToolkit) defines.
cmake_minimum_required(VERSION 3.25)
project(targets LANGUAGES CXX)
find_package(CUDAToolkit REQUIRED)
get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
list(FILTER targets INCLUDE REGEX "^CUDA::")
list(SORT targets)
message(STATUS "targets: ${targets}")
