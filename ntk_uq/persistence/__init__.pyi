from .files import save as save
from .opening import load as load
