/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS
------------------------------------------------------------------------- */

#include "compute_nbody_spread.h"

#include "pair_nbody.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "update.h"

#include <algorithm>
#include <cmath>

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

ComputeNBodySpread::ComputeNBodySpread(LAMMPS *lmp, int narg, char **arg) :
    Compute(lmp, narg, arg), pair(nullptr), nmax(0), nall(0)
{
  if (narg != 3) error->all(FLERR, "Compute nbody/spread takes no arguments");
  peratom_flag = 1;
  size_peratom_cols = 0;
  timeflag = 1;
  ComputeNBodySpread::init();    // the size of the communication is asked for before the first run
}

/* ---------------------------------------------------------------------- */

ComputeNBodySpread::~ComputeNBodySpread()
{
  memory->destroy(vector_atom);
}

/* ---------------------------------------------------------------------- */

void ComputeNBodySpread::init()
{
  pair = dynamic_cast<PairNBody *>(force->pair_match("nbody", 1));
  if (!pair && force->pair_match("nbody", 1, 1))
    error->all(FLERR,
               "Compute nbody/spread knows one pair style nbody, and pair_style hybrid has several: "
               "it cannot tell whose networks are meant");
  if (!pair || pair->members() == 0)
    error->all(FLERR, "Compute nbody/spread needs pair style nbody and its pair_coeff before it");
  if (pair->members() == 1)
    error->all(FLERR,
               "Compute nbody/spread needs a committee, and the model file holds one network");
  comm_reverse = 3 * pair->members();
}

/* ----------------------------------------------------------------------
   standard deviation of the force over the members: square root of the summed variances of its
   three components, in eV/Angstrom
------------------------------------------------------------------------- */

void ComputeNBodySpread::compute_peratom()
{
  invoked_peratom = update->ntimestep;
  const size_t numbers = (size_t) pair->members() * (atom->nlocal + atom->nghost) * 3;
  if (pair->member_step() != update->ntimestep || pair->member_forces().size() != numbers)
    error->all(FLERR, "Compute nbody/spread was asked at a step without forces");

  if (atom->nmax > nmax) {
    memory->destroy(vector_atom);
    nmax = atom->nmax;
    memory->create(vector_atom, nmax, "nbody/spread:vector_atom");
  }

  nall = atom->nlocal + atom->nghost;
  forces = pair->member_forces();
  comm->reverse_comm(this);

  const int members = pair->members();
  for (int i = 0; i < atom->nlocal; i++) {
    vector_atom[i] = 0.0;
    if (!(atom->mask[i] & groupbit)) continue;
    double variance = 0.0;
    for (int axis = 0; axis < 3; axis++) {
      double mean = 0.0, square = 0.0;
      for (int m = 0; m < members; m++) mean += at(m, i, axis) / members;
      for (int m = 0; m < members; m++) {
        const double deviation = at(m, i, axis) - mean;
        square += deviation * deviation / members;
      }
      variance += square;
    }
    vector_atom[i] = sqrt(variance);
  }
}

/* ---------------------------------------------------------------------- */

int ComputeNBodySpread::pack_reverse_comm(int n, int first, double *buf)
{
  int m = 0;
  for (int i = first; i < first + n; i++)
    for (int member = 0; member < pair->members(); member++)
      for (int axis = 0; axis < 3; axis++) buf[m++] = at(member, i, axis);
  return m;
}

void ComputeNBodySpread::unpack_reverse_comm(int n, int *list, double *buf)
{
  int m = 0;
  for (int k = 0; k < n; k++)
    for (int member = 0; member < pair->members(); member++)
      for (int axis = 0; axis < 3; axis++) at(member, list[k], axis) += buf[m++];
}

/* ---------------------------------------------------------------------- */

double ComputeNBodySpread::memory_usage()
{
  return (double) nmax * sizeof(double) + (double) forces.capacity() * sizeof(double);
}
