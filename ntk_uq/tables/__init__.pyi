from .decisions import Decisions as Decisions
from .encoder import TableEncoder as TableEncoder
from .model import TableModel as TableModel
from .model import fit_frame as fit_frame
from .model import fit_table as fit_table
from .plan import DecisionPlan as DecisionPlan
from .reading import read_table as read_table
from .writing import write_table as write_table
