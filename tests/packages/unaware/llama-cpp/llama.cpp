extern "C" int base(void);
extern "C" int backend(void);
extern "C" int probe(void) { return base() ? backend() : 0; }
