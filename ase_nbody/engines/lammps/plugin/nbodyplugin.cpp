/* ----------------------------------------------------------------------
   Part of ase-nbody: N-body networks (Kondor 2018) in LAMMPS

   What "plugin load" calls. LAMMPS defines the interface in src/PLUGIN/lammpsplugin.h, which
   binary packages of LAMMPS do not bring along.
------------------------------------------------------------------------- */

#include "compute_nbody_spread.h"
#include "pair_nbody.h"

#include "error.h"
#include "lammps.h"

#include <dlfcn.h>

using namespace LAMMPS_NS;

extern "C" {

typedef void *(lammpsplugin_factory1) (void *);
typedef void *(lammpsplugin_factory2) (void *, int, char **);

typedef struct {
  const char *version;
  const char *style;
  const char *name;
  const char *info;
  const char *author;
  union {
    lammpsplugin_factory1 *v1;
    lammpsplugin_factory2 *v2;
  } creator;
  void *handle;
} lammpsplugin_t;

typedef void (*lammpsplugin_regfunc)(lammpsplugin_t *, void *);

__attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle,
                                                              void *regfunc);
}

/* ---------------------------------------------------------------------- */

static void *pair_creator(void *lmp)
{
  return new PairNBody((LAMMPS *) lmp);
}

static void *spread_creator(void *lmp, int narg, char **arg)
{
  return new ComputeNBodySpread((LAMMPS *) lmp, narg, arg);
}

/* ----------------------------------------------------------------------
   integers of other widths than those of LAMMPS would end the run somewhere else
------------------------------------------------------------------------- */

static void check_sizes(void *lmp)
{
  auto setting = (int (*)(void *, const char *)) dlsym(RTLD_DEFAULT, "lammps_extract_setting");
  if (!setting) return;
  if (setting(lmp, "tagint") != (int) sizeof(tagint) ||
      setting(lmp, "bigint") != (int) sizeof(bigint) ||
      setting(lmp, "imageint") != (int) sizeof(imageint))
    ((LAMMPS *) lmp)
        ->error->all(FLERR,
                     "This LAMMPS has integers of other widths than the one that the plugin "
                     "nbody was built for: say \"nbody lammps build --lammps DIR\" with its folder");
}

/* ---------------------------------------------------------------------- */

void lammpsplugin_init(void *lmp, void *handle, void *regfunc)
{
  check_sizes(lmp);
  auto register_plugin = (lammpsplugin_regfunc) regfunc;
  lammpsplugin_t plugin;

  plugin.version = NBODY_LAMMPS;    // the command that builds the plugin knows it
  plugin.author = "ase-nbody";
  plugin.handle = handle;

  plugin.style = "pair";
  plugin.name = "nbody";
  plugin.info = "N-body networks, pair style nbody, PyTorch " NBODY_TORCH;
  plugin.creator.v1 = (lammpsplugin_factory1 *) &pair_creator;
  (*register_plugin)(&plugin, lmp);

  plugin.style = "compute";
  plugin.name = "nbody/spread";
  plugin.info = "N-body networks, compute nbody/spread";
  plugin.creator.v2 = (lammpsplugin_factory2 *) &spread_creator;
  (*register_plugin)(&plugin, lmp);
}
