extern "C" int base(void) { return 1; }
