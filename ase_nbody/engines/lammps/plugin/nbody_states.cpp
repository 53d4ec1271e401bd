/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS
------------------------------------------------------------------------- */

#include "nbody_states.h"

#include <cstring>

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

NBodyStates::NBodyStates(int _components, int _channels, bool _is_double) :
    components(_components), channels(_channels), is_double(_is_double),
    bytes(_is_double ? sizeof(double) : sizeof(float))
{
}

/* ---------------------------------------------------------------------- */

void NBodyStates::resize(int nrows)
{
  data.assign((size_t) nrows * components * channels * bytes, 0);
}

/* ---------------------------------------------------------------------- */

int NBodyStates::doubles() const
{
  return (int) ((components * channels * bytes + sizeof(double) - 1) / sizeof(double));
}

/* ---------------------------------------------------------------------- */

void NBodyStates::gather(const int *rows, int n, std::vector<char> &tensor) const
{
  const size_t size = channels * bytes;
  tensor.resize((size_t) components * n * size);
  char *to = tensor.data();
  for (int component = 0; component < components; component++)
    for (int i = 0; i < n; i++, to += size)
      if (rows[i] < 0)
        memset(to, 0, size);
      else
        memcpy(to, at(rows[i], component), size);
}

/* ---------------------------------------------------------------------- */

void NBodyStates::scatter(const int *rows, int n, const NBodyResult &tensor, bool add)
{
  if (is_double)
    scatter<double>(rows, n, tensor, add);
  else
    scatter<float>(rows, n, tensor, add);
}

template <typename REAL>
void NBodyStates::scatter(const int *rows, int n, const NBodyResult &tensor, bool add)
{
  const int64_t *strides = tensor.strides;
  for (int component = 0; component < components; component++)
    for (int i = 0; i < n; i++) {
      if (rows[i] < 0) continue;
      const REAL *from = (const REAL *) tensor.data + component * strides[0] + i * strides[1];
      REAL *to = (REAL *) at(rows[i], component);
      for (int c = 0; c < channels; c++)
        to[c] = (add ? to[c] : REAL(0)) + from[c * strides[2]];
    }
}

/* ---------------------------------------------------------------------- */

void NBodyStates::pack(int row, double *buf) const
{
  buf[doubles() - 1] = 0.0;    // an odd number of floats leaves half of it
  memcpy(buf, at(row, 0), components * channels * bytes);
}

void NBodyStates::unpack(int row, const double *buf, bool add)
{
  const int n = components * channels;
  if (!add) {
    memcpy(at(row, 0), buf, n * bytes);
  } else if (is_double) {
    double *to = (double *) at(row, 0);
    for (int k = 0; k < n; k++) to[k] += buf[k];
  } else {
    float *to = (float *) at(row, 0), value;
    for (int k = 0; k < n; k++) {
      memcpy(&value, (const char *) buf + k * sizeof(float), sizeof(float));
      to[k] += value;
    }
  }
}
